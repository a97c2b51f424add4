# syntax=docker/dockerfile:1
# Two stages: one with the build tools, one with nothing but the interpreter and what the lock file names.
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv --without-pip /opt/consentry \
 && python -m pip --python /opt/consentry/bin/python install --no-cache-dir --require-hashes --only-binary=:all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY filter ./filter
COPY config ./config
RUN /opt/consentry/bin/python -m hatchling build --target wheel --directory /tmp/wheel \
 && python -m pip --python /opt/consentry/bin/python install --no-cache-dir --no-deps --no-index /tmp/wheel/*.whl

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/consentry --create-home consentry \
 && chmod 700 /var/lib/consentry
COPY --from=build /opt/consentry /opt/consentry
# Mount the configuration here; in it store.dir = "/var/lib/consentry", smtp.listen = ["0.0.0.0:2625"].
ENV PATH=/opt/consentry/bin:$PATH PYTHONUNBUFFERED=1 CONSENTRY_CONFIG=/etc/consentry/filter.toml
USER consentry
WORKDIR /var/lib/consentry
VOLUME /var/lib/consentry
EXPOSE 2625 9625
# Alive, not ready: restarting helps against neither a full disk nor a next hop that is down.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9625/livez', timeout=4)"]
ENTRYPOINT ["consentry"]
CMD ["run"]
