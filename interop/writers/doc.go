// Package writers tests larder with the systems that write the bucket, each the real program as a
// process: Prometheus and the sidecar, the compactor, the receiver, the ruler, and the store
// gateway that shares a data-dir with larder.
package writers
