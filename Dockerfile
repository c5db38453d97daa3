# A static binary on an empty image. The build stage needs the Go module proxy (or a module cache) and nothing else.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/prometheus/common/version.Version=${VERSION}" -o /larder ./cmd/larder \
 && mkdir /empty

# static-debian12:nonroot has root certificates, /etc/passwd, time zones and the user 65532, and no shell.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /larder /bin/larder
# --data-dir is ./data by default. A volume that is mounted here gets this owner.
COPY --from=build --chown=65532:65532 /empty /var/larder
WORKDIR /var/larder
USER 65532:65532
EXPOSE 10901 10902
ENTRYPOINT ["/bin/larder"]
CMD ["store", "--help"]
