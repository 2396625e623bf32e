# docker-compose.yaml runs this image with three brokers. The second stage has neither sources nor pip.
FROM python:3.13-slim AS build
COPY . /src
RUN python -m venv --without-pip /opt/bts-exporter \
    && pip --python /opt/bts-exporter/bin/python install --no-cache-dir /src

FROM python:3.13-slim
COPY --from=build /opt/bts-exporter /opt/bts-exporter
# As in systemd/bts-exporter.service: fewer arenas of malloc, and memory of large scrapes is returned
# to the system. The user cannot write .pyc files.
ENV MALLOC_ARENA_MAX=2 MALLOC_TRIM_THRESHOLD_=1048576 PYTHONDONTWRITEBYTECODE=1
USER 65534:65534
EXPOSE 19100
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["/opt/bts-exporter/bin/python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:19100/-/healthy', timeout=4)"]
ENTRYPOINT ["/opt/bts-exporter/bin/bts-exporter"]
