// Command image writes larder's container image as an OCI layout, without a container engine:
//
//	go run . --root=../.. --out=../../bin/image --version=v1 --revision=4f539e9 \
//	  --created=1700000000
//
// It cross-compiles larder for each platform and puts the binary into an image that has nothing
// else but root certificates, the users root and nonroot, an empty data directory, the licence and
// a software bill of materials. The binary contains the time zones.
//
// Equal sources, toolchain and arguments give an equal digest: files have one owner, mode and time
// each, and nothing is read from the machine. Therefore the root certificates are those of module
// golang.org/x/crypto/x509roots/fallback (Mozilla's, in the version of go.mod) and not the
// machine's. Trust in a few of them is limited to certificates of before some day; a PEM bundle
// cannot say that. They are included, same as in Debian's ca-certificates.
//
// The module is apart from larder's. It starts the go command, and has no goroutines or locks.
package main
