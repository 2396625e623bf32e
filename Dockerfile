# docker-compose.yaml runs this image with three brokers. The second stage has neither sources nor pip.
# The image of a release is pinned by its digest; `docker buildx imagetools inspect python:3.13-slim-bookworm` shows
# the newest one. What pip installs is pinned in packages/, with hashes.
ARG BASE=docker.io/library/python:3.13-slim-bookworm@sha256:01f42367a0a94ad4bc17111776fd66e3500c1d87c15bbd6055b7371d39c124fb

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY packages /src/packages
RUN python -m venv --without-pip /opt/bts-exporter \
    && pip --python /opt/bts-exporter/bin/python install --require-hashes -r /src/packages/requirements.lock \
    && pip --python /opt/bts-exporter/bin/python install --require-hashes -r /src/packages/build-requirements.lock \
        --target /tools
COPY . /src
RUN PYTHONPATH=/tools pip --python /opt/bts-exporter/bin/python install --no-build-isolation --no-deps /src \
    && python /src/packages/bill_of_materials.py /opt/bts-exporter/lib/python3*/site-packages > /bts-exporter.cdx.json

FROM ${BASE}
COPY --from=build /opt/bts-exporter /opt/bts-exporter
COPY --from=build /bts-exporter.cdx.json /usr/share/doc/bts-exporter/bts-exporter.cdx.json
# As in systemd/bts-exporter.service: fewer arenas of malloc, and memory of large scrapes is returned
# to the system. The user cannot write .pyc files.
ENV MALLOC_ARENA_MAX=2 MALLOC_TRIM_THRESHOLD_=1048576 PYTHONDONTWRITEBYTECODE=1
# User nobody: nothing is written, so that the root file system can be read-only.
USER 65534:65534
WORKDIR /
EXPOSE 19100
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["/opt/bts-exporter/bin/python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:19100/-/healthy', timeout=4)"]
ENTRYPOINT ["/opt/bts-exporter/bin/bts-exporter"]
