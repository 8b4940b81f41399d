# The dependencies are a stage of their own, keyed by setup.cfg and constraints.txt: a change of code rebuilds in seconds.
FROM python:3.11-slim AS dependencies
# The system's certificates, so that an authority added to the base image counts for pip too.
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CERT=/etc/ssl/certs/ca-certificates.crt
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /build
COPY constraints.txt ./
# The CPU build: the default one for Linux brings several GB of CUDA. What it needs comes with the rest below.
RUN pip install --no-deps --extra-index-url https://download.pytorch.org/whl/cpu \
    "torch==$(sed -n 's/^torch==//p' constraints.txt)+cpu"
COPY setup.cfg ./
RUN python -c "import configparser; c = configparser.ConfigParser(); c.read('setup.cfg'); \
extras = c['options.extras_require']; print(c['options']['install_requires'], extras['train'], extras['test'])" \
    > requirements.txt && pip install -c constraints.txt -r requirements.txt
# Two SUMO wheels carry the same 230 MB of libraries, and sumolib carries the tools that are of use here.
RUN cd /opt/venv/lib/python3.11/site-packages && rm -r sumo/tools \
    && diff -r libsumo.libs eclipse_sumo.libs && rm -r eclipse_sumo.libs && ln -s libsumo.libs eclipse_sumo.libs


FROM python:3.11-slim AS system
# What the SUMO wheels take from the system. They link against libGL and draw nothing here, so the graphics drivers that
# come with it (LLVM and all, 200 MB) go again.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        libatomic1 libexpat1 libgl1 libstdc++6 libx11-6 libxext6 libxrender1 zlib1g \
    && dpkg --purge --force-depends $(dpkg-query -W -f '${Package} ' 'libllvm*' libgl1-mesa-dri 'mesa-libgallium*' 'libicu*' 'libz3-*') \
    && rm -rf /var/lib/apt/lists/*
# Any user id works (the caller's is the usual one), so home and mount points are open to all.
RUN useradd --uid 1000 --no-create-home --home-dir /home/roadsense roadsense \
    && install -d -m 1777 /app /home/roadsense /home/roadsense/.cache
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/home/roadsense \
    USER=roadsense \
    NUMBA_CACHE_DIR=/home/roadsense/.cache/numba \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app


FROM system AS runtime
COPY --from=dependencies /opt/venv /opt/venv
COPY . .
RUN chmod -R a+rX . \
    && install -d -m 1777 . runs scenarios/datasets \
    && pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation -e . \
    && python -m compileall -q roadsense \
    && cd / && python -c "import libsumo, roadsense.cli" && sumo --version > /dev/null
ARG GIT_COMMIT=unknown
ENV ROADSENSE_GIT_COMMIT=$GIT_COMMIT
USER roadsense
HEALTHCHECK --interval=1h --timeout=2m CMD ["python", "-c", "import roadsense, gymnasium as gym; env = gym.make('Convoy-v0'); env.reset(seed=0); env.step(env.action_space.sample()); env.close()"]
CMD ["roadsense", "--help"]


# The same with a browser and a C compiler, for tests that open pages or build the exported C. Chromium needs some of
# what went, so that comes back first.
FROM system AS browser
RUN apt-get update \
    && apt-get install -y --no-install-recommends --fix-broken \
    && apt-get install -y --no-install-recommends chromium fonts-dejavu-core g++ \
    && rm -rf /var/lib/apt/lists/*


FROM browser AS tests
COPY --from=runtime /opt/venv /opt/venv
COPY --from=runtime /app /app
RUN install -d -m 1777 . runs scenarios/datasets
ARG GIT_COMMIT=unknown
ENV ROADSENSE_GIT_COMMIT=$GIT_COMMIT ROADSENSE_REQUIRE_CHROMIUM=1
USER roadsense


# What goes to a registry for rented machines: with Ray, with what keeps results in S3, and with what Ray's cluster
# launcher calls inside of a container.
FROM runtime AS cloud
USER root
RUN apt-get update \
    && apt-get install -y --no-install-recommends --fix-broken \
    && apt-get install -y --no-install-recommends openssh-client rsync \
    && rm -rf /var/lib/apt/lists/*
# The system's certificates count here too. The launcher's commands run in login shells, for which Debian sets PATH anew.
RUN echo 'PATH=/opt/venv/bin:$PATH' > /etc/profile.d/roadsense.sh \
    && PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    pip install --no-cache-dir --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[cloud,ray]'
USER roadsense


# What is built where nobody names a stage.
FROM runtime
