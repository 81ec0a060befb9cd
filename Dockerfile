# Windlass' image: the binary, git, ssh, certificates and kustomize; nothing runs as root.
#
#   docker build -t windlass:0.1.0 .
#
# The bases are pinned by the tag of a release. To pin what is behind a tag as well, add its digest, which
# `docker buildx imagetools inspect debian:12.13-slim` prints:
#   FROM debian:12.13-slim@sha256:...

FROM rust:1.95.0-slim-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential cmake pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
# Cargo wants every target that the manifest names, be it built or not.
COPY examples examples
COPY tests/main.rs tests/main.rs
COPY tests/simulation/Cargo.toml tests/simulation/main.rs tests/simulation/
RUN cargo build --release --locked --bin windlass

FROM golang:1.26.8-bookworm AS kustomize
# The version that the tests run (tests/cluster/build.sh), built from its module: no binary is downloaded.
ARG KUSTOMIZE_VERSION=v5.8.2
RUN CGO_ENABLED=0 GOBIN=/out go install -ldflags "-s -w" \
    "sigs.k8s.io/kustomize/kustomize/v5@${KUSTOMIZE_VERSION}"

FROM debian:12.13-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="windlass" \
      org.opencontainers.image.description="GitOps reconciliation for Kubernetes that treats a commit as one transaction" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git openssh-client ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    # ssh refuses to run for a user that has no name.
    && groupadd --gid 65532 windlass \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin windlass \
    && install --directory --owner=65532 --group=65532 --mode=0700 /var/cache/windlass
COPY --from=kustomize /out/kustomize /usr/local/bin/kustomize
COPY --from=build /src/target/release/windlass /usr/local/bin/windlass
# A number, not a name: a kubelet can prove of no name that it is not root.
USER 65532:65532
ENV WINDLASS_CACHE_DIR=/var/cache/windlass \
    WINDLASS_KUSTOMIZE=/usr/local/bin/kustomize \
    WINDLASS_LISTEN=:8080
VOLUME ["/var/cache/windlass"]
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=6 \
    CMD ["/usr/local/bin/windlass", "probe", "http://127.0.0.1:8080/livez"]
ENTRYPOINT ["/usr/local/bin/windlass"]
CMD ["run"]
