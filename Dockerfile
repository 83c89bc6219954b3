# The retry service: `docker build -t kafetrain . && docker run -p 127.0.0.1:8080:8080 -v tasks:/data kafetrain`.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY kafetrain kafetrain
RUN python -m venv /opt/kafetrain && /opt/kafetrain/bin/pip install --no-cache-dir '.[service,redis,compression]'

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /data --create-home kafetrain
COPY --from=build /opt/kafetrain /opt/kafetrain
ENV PATH=/opt/kafetrain/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ENVIRONMENT=prod \
    HTTP_HOST=0.0.0.0 \
    HTTP_PORT=8080
USER kafetrain
WORKDIR /data
VOLUME /data
EXPOSE 8080
# SIGTERM ends it in order; give it more than SHUTDOWN_TIMEOUT before it is killed.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['HTTP_PORT'] + '/health', timeout=4)"]
ENTRYPOINT ["kafetrain"]
CMD ["serve"]
