// Command protocgen is protoc-gen-go for the messages of the StoreAPI: their strings may hold any
// bytes.
//
// Label names and values are bytes in practice. Thanos's generated code neither checks nor changes
// them, and one value that is not UTF-8 must not make a whole answer fail. Go's code of proto3
// checks every string, and only a file of an edition can say that it must not. Debian's protoc does
// not know editions, so the files stand in proto3 and are turned here into the same in edition
// 2023.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	if err := run(os.Getenv("PROTOC_GEN_GO")); err != nil {
		fmt.Fprintln(os.Stderr, "protocgen:", err)
		os.Exit(1)
	}
}

// run passes the request on standard input to the plugin, with the files to generate as those of an
// edition.
func run(plugin string) error {
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var req pluginpb.CodeGeneratorRequest
	if err := proto.Unmarshal(in, &req); err != nil {
		return err
	}
	own := map[string]bool{}
	for _, name := range req.FileToGenerate {
		own[name] = true
	}
	for _, f := range req.ProtoFile {
		if own[f.GetName()] {
			withoutUTF8(f)
		}
	}
	out, err := proto.Marshal(&req)
	if err != nil {
		return err
	}
	cmd := exec.Command(plugin)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(out), os.Stdout, os.Stderr
	return cmd.Run()
}

// withoutUTF8 turns a file of proto3 into one of edition 2023 that means the same but for the check
// of strings.
func withoutUTF8(f *descriptorpb.FileDescriptorProto) {
	f.Syntax = proto.String("editions")
	f.Edition = descriptorpb.Edition_EDITION_2023.Enum()
	if f.Options == nil {
		f.Options = &descriptorpb.FileOptions{}
	}
	f.Options.Features = &descriptorpb.FeatureSet{
		FieldPresence:  descriptorpb.FeatureSet_IMPLICIT.Enum(),
		Utf8Validation: descriptorpb.FeatureSet_NONE.Enum(),
	}
}
