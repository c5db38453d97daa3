# For builds with Docker. `make image` makes the same image without it; see deploy/image.
#
#     docker buildx build --platform=linux/amd64,linux/arm64 \
#         --build-arg VERSION=1 --build-arg REVISION="$(git rev-parse HEAD)" -t larder:1 .
#
# The build stage runs on the platform of the builder and cross-compiles. It needs the Go module
# proxy and nothing else. The digests are those of the tags' multi-platform indexes;
# `docker buildx imagetools inspect golang:1.26.7` prints the present one.
FROM --platform=$BUILDPLATFORM golang:1.26.7@sha256:45a5f7a810238aabcbad211d70b9ae082022d96f7c7259e94041ad1b933575ac AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
ARG REVISION=unknown
ARG TARGETOS
ARG TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -tags timetzdata \
      -ldflags "-s -w -buildid= -X github.com/prometheus/common/version.Version=${VERSION} -X github.com/prometheus/common/version.Revision=${REVISION}" \
      -o /larder ./cmd/larder \
 && mkdir /empty

# static-debian12:nonroot has root certificates, /etc/passwd and the user 65532, and no shell.
FROM gcr.io/distroless/static-debian12:nonroot@sha256:b7bb25d9f7c31d2bdd1982feb4dafcaf137703c7075dbe2febb41c24212b946f
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="larder" \
      org.opencontainers.image.description="Store gateway for Thanos" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /larder /bin/larder
# --data-dir is ./data by default. A volume that is mounted here gets this owner.
COPY --from=build --chown=65532:65532 /empty /var/larder
WORKDIR /var/larder
USER 65532:65532
EXPOSE 10901 10902
ENTRYPOINT ["/bin/larder"]
CMD ["store", "--help"]
