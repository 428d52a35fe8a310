# The gateway in a container. Unless [auth] says who may come in, it listens on loopback only, so run
# it in the network of what speaks to it: as a sidecar in the same pod, or with
#
#   docker run --network host -v ./gateway.toml:/etc/session-gateway/gateway.toml session-gateway
#
# With [auth], `host = "0.0.0.0"` in [server] and `--publish 8080:8080` let others in. With [tls] the
# health check below has to be another one, which speaks https.

FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock requirements-sbom.lock ./
RUN python -m venv /opt/session-gateway \
    && /opt/session-gateway/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY static static
RUN /opt/session-gateway/bin/pip install --no-cache-dir --no-deps .
# What the image is made of, in CycloneDX's form: sbom.cdx.json beside the programs.
RUN python -m venv /opt/sbom \
    && /opt/sbom/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-sbom.lock \
    && /opt/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
        --output-file /opt/session-gateway/sbom.cdx.json /opt/session-gateway

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home gateway
COPY --from=build /opt/session-gateway /opt/session-gateway
ENV PATH=/opt/session-gateway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["session-gateway"]
CMD ["serve", "--config", "/etc/session-gateway/gateway.toml"]
