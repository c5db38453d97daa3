// Package writers holds larder to what the systems that write the bucket do with it: Prometheus and
// the sidecar, the compactor, the receiver, the ruler, each the real program as a process of its
// own, and the store gateway that larder takes turns with on one data-dir.
package writers
