// Package objectstores shows that larder answers over S3, GCS and Azure as it does over a folder:
// the same random blocks behind a prefix, the same random requests. Each store is a server that
// speaks the real protocol to objstore's real client: gofakes3 and fake-gcs-server from the module
// interop/servers, Azurite from its package.json. That larder answers over a folder as Thanos does
// is the matter of package interop.
package objectstores
