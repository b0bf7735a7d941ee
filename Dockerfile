# Hotspare for CPUs: builds the binary from source and runs the embedded model by default.
#   docker build -t hotspare . && docker run --rm -p 8000:8000 hotspare
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package hotspare

FROM debian:bookworm-slim
RUN useradd --create-home --uid 10001 hotspare
COPY --from=build /src/target/release/hotspare /usr/local/bin/hotspare
USER hotspare
ENV HOTSPARE_HOST=0.0.0.0
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["hotspare"]
CMD ["serve"]
