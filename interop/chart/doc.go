// Package chart tests the Helm chart in deploy/helm/larder and the manifests in deploy/manifests.
//
// It is a module of its own: Helm and the API types of Kubernetes would move Thanos's dependencies
// in interop/. Helm 3 and Helm 4 render a matrix of values as libraries. The documents are decoded
// strictly, checked against one another, and their arguments start the binary.
//
// The manifests are rendered from the chart. After an intended change, write them with
// `make manifests`.
package chart
