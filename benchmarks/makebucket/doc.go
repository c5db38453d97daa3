// Command makebucket writes one of the dataset's layouts into a folder, which is then a FILESYSTEM
// bucket:
//
//	go run ./benchmarks/makebucket --layout=bench50k --dir=/tmp/bucket
package main
