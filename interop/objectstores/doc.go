// Package objectstores tests that larder gives the same answers over S3, GCS and Azure as over a
// folder, for the same random blocks behind a prefix and the same random requests. Each store is a
// server that speaks the real protocol to objstore's real client: gofakes3 and fake-gcs-server from
// the module interop/servers, Azurite from its package.json. Package interop tests that larder
// answers over a folder as Thanos does.
package objectstores
