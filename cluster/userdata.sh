#!/usr/bin/env bash
# User data of one machine (docs/aws.md): runs one job, keeps log and runs in S3, and switches the machine off, whatever
# happens. There is no secret in it: registry and bucket are opened by the machine's instance profile.
set -euo pipefail

# ---- to be set; what is in the environment counts first --------------------------------------------------------------
REGION=${REGION:-eu-central-1}
IMAGE=${IMAGE:-123456789012.dkr.ecr.eu-central-1.amazonaws.com/roadsense:latest}
STORE=${STORE:-s3://YOUR-BUCKET/convoys}
MAX_HOURS=${MAX_HOURS:-4}          # the machine is off by then, whatever runs on it
MAX_USD=${MAX_USD:-2}              # refused before the start where MAX_HOURS at USD_PER_HOUR come to more
USD_PER_HOUR=${USD_PER_HOUR:-0.40} # of this machine
COMMAND=${COMMAND:-pipeline --seed 7}
RESUME=${RESUME:-}                 # s3://…/attempts/<attempt>/runs/<run id> of a run that goes on here
WORK=${WORK:-/var/lib/roadsense}
# ----------------------------------------------------------------------------------------------------------------------

container=roadsense-job
log=$WORK/log.txt
machine=$(date -u +%Y%m%dT%H%M%SZ)-$$ # until it is known better

finish() { # the machine costs money until it is off: nothing here may stop the way to the last line
  local code=$?
  trap - EXIT
  trap '' INT TERM
  set +e
  docker stop --time 300 "$container" >/dev/null 2>&1 # which interrupts the work, and waits for its last checkpoint
  echo "ends with exit code $code"
  timeout 300 aws s3 cp --only-show-errors --region "$REGION" "$log" "$STORE/machines/$machine/log.txt"
  timeout 900 aws s3 cp --only-show-errors --region "$REGION" --recursive "$WORK/runs" "$STORE/machines/$machine/runs/"
  shutdown -h now
  exit "$code"
}
trap finish EXIT
trap 'exit 143' INT TERM

# First of all, so that not even a script that hangs keeps the machine on.
shutdown -h "+$(awk -v hours="$MAX_HOURS" 'BEGIN { minutes = hours * 60; print int(minutes) + (minutes > int(minutes)) }')"

mkdir -p "$WORK/runs" "$WORK/datasets"
exec >>"$log" 2>&1
case $STORE in
  *YOUR-BUCKET*)
    echo "STORE is not set; edit the first lines of this script."
    exit 2
    ;;
esac

metadata=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
if token=$(curl -sf -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$metadata/latest/api/token"); then
  machine=$(curl -sf -m 5 -H "X-aws-ec2-metadata-token: $token" "$metadata/latest/meta-data/instance-id" || echo "$machine")
fi

command -v docker >/dev/null || dnf install -y -q docker
systemctl start docker
aws ecr get-login-password --region "$REGION" | docker login --username AWS --password-stdin "${IMAGE%%/*}"
docker pull --quiet "$IMAGE"
chown -R 1000:1000 "$WORK/runs" "$WORK/datasets" # the image's user

# The host's network, for the metadata service answers the machine itself and no hop further.
options=(--rm --init --network host --shm-size 2g --user 1000:1000 --env "AWS_REGION=$REGION" --env "ROADSENSE_IMAGE=$IMAGE"
  -v "$WORK/runs:/app/runs" -v "$WORK/datasets:/app/scenarios/datasets")
if [ -n "$RESUME" ]; then
  docker run "${options[@]}" "$IMAGE" roadsense store get "$RESUME" "runs/${RESUME##*/}"
fi
read -ra words <<<"$COMMAND"
used_hours=$(awk '{ printf "%.4f", $1 / 3600 }' /proc/uptime)
# In the background, for bash answers a signal only once a command in the foreground has ended.
docker run --name "$container" "${options[@]}" "$IMAGE" roadsense job run --store "$STORE" --max-hours "$MAX_HOURS" \
  --max-usd "$MAX_USD" --usd-per-hour "$USD_PER_HOUR" --used-hours "$used_hours" -- "${words[@]}" &
wait $!
