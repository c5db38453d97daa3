// Package multicluster tests the usual deployment over several clusters: a Querier in one cluster
// reaches larder in another through a proxy. All have certificates of one authority, and a client
// without one is rejected.
package multicluster
