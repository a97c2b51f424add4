# syntax=docker/dockerfile:1
# Two stages: one that has pip and builds the wheel, one with nothing but the interpreter and what the lock file names.
# Pin the base by digest where you build (--build-arg PYTHON_IMAGE=python@sha256:...): a tag is moved by others.
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
WORKDIR /src
COPY requirements.lock ./
# Wheels only: building a source archive would run code that no hash in the lock file covers.
RUN python -m venv --without-pip /opt/consentry \
 && python -m pip --python /opt/consentry/bin/python install --require-hashes --only-binary=:all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY filter ./filter
COPY config ./config
# What built the wheel is not needed to run it; pip has compiled everything to bytecode, as nothing can be written later.
RUN /opt/consentry/bin/python -m hatchling build --target wheel --directory /src/dist \
 && python -m pip --python /opt/consentry/bin/python install --no-deps --no-index /src/dist/*.whl \
 && python -m pip --python /opt/consentry/bin/python uninstall --yes hatchling pathspec pluggy trove-classifiers

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="consentry" \
      org.opencontainers.image.description="The consent gate for outbound messages" \
      org.opencontainers.image.licenses="Apache-2.0"
# By number, so that an orchestrator can see that it is not root. Nobody has to log in, so there is no shell.
RUN groupadd --gid 10001 consentry \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/consentry --shell /usr/sbin/nologin consentry \
 && install -d -m 0700 -o 10001 -g 10001 /var/lib/consentry
COPY --from=build /opt/consentry /opt/consentry
# Nothing is written but below /var/lib/consentry: run it with a read-only root file system. The configuration is
# mounted; it says store.dir = "/var/lib/consentry", and smtp.listen and http.listen as others are to reach them.
ENV PATH=/opt/consentry/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CONSENTRY_CONFIG=/etc/consentry/filter.toml
USER 10001:10001
WORKDIR /var/lib/consentry
VOLUME /var/lib/consentry
EXPOSE 2625 9625
STOPSIGNAL SIGTERM
# Alive, not ready: restarting helps against neither a full disk nor a next hop that is down.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
  CMD ["python", "-I", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9625/livez', timeout=4)"]
ENTRYPOINT ["consentry"]
CMD ["run"]
