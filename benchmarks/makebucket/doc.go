// Command makebucket writes one of the dataset's layouts into a folder, which is then a FILESYSTEM
// bucket. Tests of interop/ and measurements by hand use it. The same seed writes the same bytes.
//
//	go run ./benchmarks/makebucket --layout=bench50k --dir=/tmp/bucket
package main
