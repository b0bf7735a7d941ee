# Hotspare for CPUs: builds the binary from source and runs the embedded model by default.
#   docker build -t hotspare . && docker run --rm -p 8000:8000 hotspare
# Needs BuildKit (Docker's own from 23 on), podman or buildah. Dockerfile.cuda is the one for cards.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
ARG HOTSPARE_COMMIT=unknown
# Downloads and compiled dependencies stay from build to build. Cargo knows what changed by files'
# times, which another checkout's need not tell: our own crates are compiled each time.
RUN --mount=type=cache,id=hotspare-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=hotspare-target,target=/cache,sharing=locked \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && CARGO_TARGET_DIR=/cache cargo build --release --locked --package hotspare \
    && mkdir -p out && strip -o out/hotspare /cache/release/hotspare

FROM debian:bookworm-slim
# A model's download needs the certificates, the healthcheck curl. What a new volume is made from
# belongs to the user: models and hashes, and the state of a node of a pair.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 hotspare && useradd --create-home --uid 10001 --gid 10001 hotspare \
    && install -d -o 10001 -g 10001 /home/hotspare/.cache /home/hotspare/.local /home/hotspare/.local/state
COPY LICENSE /usr/local/share/hotspare/
COPY --from=build /src/out/hotspare /usr/local/bin/hotspare
# By number: Kubernetes's runAsNonRoot accepts no name.
USER 10001:10001
WORKDIR /home/hotspare
ENV HOTSPARE_HOST=0.0.0.0
EXPOSE 8000
# Running requests then have --shutdown-timeout, 30 s: more than the 10 s of `docker stop`.
STOPSIGNAL SIGTERM
# /health says 200 once a request would be served. Set another port by HOTSPARE_PORT: an argument is
# not seen here.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD curl --fail --silent --show-error --max-time 4 "http://127.0.0.1:${HOTSPARE_PORT:-8000}/health" || exit 1
ARG HOTSPARE_COMMIT=unknown
LABEL org.opencontainers.image.title="Hotspare" \
      org.opencontainers.image.description="LLM inference server for CPUs" \
      org.opencontainers.image.source="https://github.com/hotspare/hotspare" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${HOTSPARE_COMMIT}"
ENTRYPOINT ["hotspare"]
CMD ["serve"]
