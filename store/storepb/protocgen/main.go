// Command protocgen runs protoc-gen-go so that strings in StoreAPI messages may hold any bytes.
//
// Label names and values are bytes in practice. The generated code of Thanos neither checks nor
// changes them, and one value that is not UTF-8 must not make a whole answer fail. Go code
// generated from proto3 checks every string. Only a file of an edition can turn the check off.
// Debian's protoc does not know editions. The files therefore use proto3, and protocgen converts
// them to edition 2023.
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

// run converts the files to generate to an edition and passes the request on standard input to the
// plugin.
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

// withoutUTF8 converts a proto3 file to edition 2023. The meaning stays the same, but strings are
// not checked.
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
