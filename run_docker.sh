#!/usr/bin/env bash
# One command from a fresh clone: runs roadsense in a container, or in .venv where no engine answers.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: ./run_docker.sh VERB [ARGUMENTS]

  build             make the image (or .venv), run nothing
  shell [...]       a shell in it; arguments go to bash
  test [...]        the test suite; arguments go to pytest (local: tests that need chromium, gcc or g++ skip without)
  anything else     goes to roadsense as it is: ./run_docker.sh pipeline --seed 7

Paths are relative to this folder; in a container only runs/ and scenarios/datasets/ are kept.

  ROADSENSE_ENGINE  auto (default): docker, else podman, else local; or docker, podman, local (= .venv, no container)
  ROADSENSE_PYTHON  the interpreter to make .venv with
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
cd "$here"
image=roadsense
stage=runtime # of the Dockerfile
cache=roadsense-cache
image_uid=1000 # the Dockerfile's user
venv=$here/.venv

say() { printf 'run_docker.sh: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

# ---- which engine ---------------------------------------------------------------------------------------------------

answers() {
  command -v "$1" >/dev/null 2>&1 || return 1
  if command -v timeout >/dev/null 2>&1; then
    timeout 20 "$1" info >/dev/null 2>&1
  else
    "$1" info >/dev/null 2>&1
  fi
}

choose_engine() {
  case "${ROADSENSE_ENGINE:-auto}" in
    auto)
      if answers docker; then
        echo docker
      elif answers podman; then
        echo podman
      else
        echo local
      fi
      ;;
    local) echo local ;;
    docker | podman)
      answers "$ROADSENSE_ENGINE" ||
        fail "ROADSENSE_ENGINE=$ROADSENSE_ENGINE, but no $ROADSENSE_ENGINE answers here: start it, or set ROADSENSE_ENGINE=local."
      echo "$ROADSENSE_ENGINE"
      ;;
    *)
      say "ROADSENSE_ENGINE is '$ROADSENSE_ENGINE'; it can be auto, docker, podman or local."
      exit 2
      ;;
  esac
}

# ---- local: .venv ---------------------------------------------------------------------------------------------------

usable() { # a working Python >= 3.11 that can make environments (a pyenv shim may exist and not run)
  "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
  local python
  if [ -n "${ROADSENSE_PYTHON:-}" ]; then
    usable "$ROADSENSE_PYTHON" ||
      fail "ROADSENSE_PYTHON=$ROADSENSE_PYTHON is no working Python 3.11 or newer with the venv module."
    echo "$ROADSENSE_PYTHON"
    return
  fi
  for python in python3.11 python3.12 python3.13 python3; do # the version of the image first
    if usable "$python"; then
      echo "$python"
      return
    fi
  done
  fail "no Python 3.11 or newer with the venv module was found (tried python3.11, 3.12, 3.13, python3): install one, or start Docker or Podman."
}

wanted_stamp() { # what an installed .venv was made from, and where
  echo "$here"
  cat pyproject.toml setup.cfg constraints.txt
}

install_torch() { # the CPU build where one is offered: the default build for Linux brings several GB of CUDA
  local version pip=("$venv/bin/python" -m pip install -q --no-deps)
  version=$(sed -n 's/^torch==//p' constraints.txt)
  if [ "$(uname -s)" = Linux ]; then
    if "${pip[@]}" "torch==$version+cpu" 2>/dev/null ||
      "${pip[@]}" --extra-index-url https://download.pytorch.org/whl/cpu "torch==$version+cpu" 2>/dev/null; then
      return
    fi
    say "no CPU build of torch is offered here; taking the default one"
  fi
  "${pip[@]}" "torch==$version"
}

is_ready() {
  wanted_stamp | cmp -s - "$venv/.roadsense-installed" && usable "$venv/bin/python"
}

prepare_venv() {
  local python unfinished=$venv/.roadsense-installing
  if is_ready; then return; fi
  if command -v flock >/dev/null 2>&1; then # a second call waits for the first one's install
    exec 9<"$here"
    flock 9
    if is_ready; then
      exec 9<&-
      return
    fi
  fi
  trap 'exit 130' INT TERM # pip turns Ctrl-C into a plain failure, after which the next attempt would start
  # An install that was cut short leaves packages that look complete: begin anew then, else update in place.
  if [ -e "$unfinished" ] || ! usable "$venv/bin/python"; then
    python=$(find_python)
    say "making .venv with $("$python" -V)"
    "$python" -m venv --clear "$venv"
  fi
  rm -f "$venv/.roadsense-installed"
  : >"$unfinished"
  say "installing the pinned packages into .venv (once; some minutes)"
  export PIP_DISABLE_PIP_VERSION_CHECK=1
  if ! { install_torch && "$venv/bin/python" -m pip install -q -c constraints.txt -e '.[train,dev,ray]'; } >&2; then
    fail "the packages could not be installed; pip's message above says why. The same command tries again."
  fi
  wanted_stamp >"$unfinished"
  mv "$unfinished" "$venv/.roadsense-installed"
  exec 9<&-
}

run_local() {
  prepare_venv
  export VIRTUAL_ENV=$venv PATH="$venv/bin:$PATH"
  unset PYTHONHOME
  case "$1" in
    build) ;;
    shell) exec bash "${@:2}" ;;
    test) exec "$venv/bin/python" -m pytest "${@:2}" ;;
    *) exec "$venv/bin/roadsense" "$@" ;;
  esac
}

# ---- container ------------------------------------------------------------------------------------------------------

build_image() {
  local commit
  commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
  [ -z "$(git status --porcelain 2>/dev/null)" ] || commit=$commit-dirty
  "$engine" build -t "$image" --target "$stage" --build-arg "GIT_COMMIT=$commit" . >&2 ||
    fail "the image could not be built; $engine's message above says why."
}

# Sets `user`: never root in the container, and the one who then owns what is written to the mounted folders.
choose_user() {
  user=("$(id -u)" "$(id -g)")
  if [ "${user[0]}" = 0 ]; then
    user=("${SUDO_UID:-$image_uid}" "${SUDO_GID:-$image_uid}")
    [ "${user[0]}" != 0 ] || user=("$image_uid" "$image_uid")
    chown "${user[0]}:${user[1]}" runs scenarios/datasets
  fi
}

run_container() {
  local options user identity
  mkdir -p runs scenarios/datasets
  choose_user
  identity=$("$engine" image inspect --format '{{.Id}}' "$image" 2>/dev/null || true) # what results say they ran in
  options=(--rm --shm-size 1g --user "${user[0]}:${user[1]}"
    -v "$here/runs:/app/runs" -v "$here/scenarios/datasets:/app/scenarios/datasets"
    -v "$cache:/home/roadsense/.cache" --security-opt label=disable)
  [ -z "$identity" ] || options+=(--env "ROADSENSE_IMAGE=$image@sha256:${identity#sha256:}")
  if "$engine" --version 2>/dev/null | grep -qi podman; then # also where `docker` is podman's alias
    [ "$(id -u)" = 0 ] || options+=(--userns keep-id)
  else
    options+=(--init)
    # A rootless daemon maps the caller to uid 0 of the container: root in there is the caller, and nobody else out here.
    ! "$engine" info --format '{{.SecurityOptions}}' 2>/dev/null | grep -q rootless || options+=(--user 0:0)
  fi
  if [ -t 0 ] && [ -t 1 ]; then
    options+=(-it)
  else
    options+=(-i)
  fi
  case "$1" in
    shell) exec "$engine" run "${options[@]}" "$image" bash "${@:2}" ;;
    test) exec "$engine" run "${options[@]}" --env ROADSENSE_REQUIRE_SUMO "$image" python -m pytest "${@:2}" ;;
    *) exec "$engine" run "${options[@]}" "$image" roadsense "$@" ;;
  esac
}

# ---------------------------------------------------------------------------------------------------------------------

case "${1:-}" in
  '')
    usage >&2
    exit 2
    ;;
  -h | --help | help)
    usage
    exit 0
    ;;
esac
engine=$(choose_engine)
if [ "$engine" = local ]; then
  say "engine: local (.venv)"
  run_local "$@"
else
  [ "$1" != test ] || image=roadsense-test stage=tests # which also open pages
  say "engine: $engine (image $image)"
  build_image
  [ "$1" = build ] || run_container "$@"
fi
