package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

// bomPath is where the image has its software bill of materials, without a leading slash.
const bomPath = "usr/share/doc/larder/bom.cdx.json"

// billOfMaterials lists the modules that are linked into a Go binary, and the toolchain that built
// it, in CycloneDX's JSON. It has no time and no serial number, so that it is reproducible.
func billOfMaterials(binary []byte, version string) ([]byte, error) {
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("bill of materials: read the build info: %w", err)
	}
	larder := &cyclonedx.Component{
		BOMRef: "larder", Type: cyclonedx.ComponentTypeApplication, Name: "larder",
		Version: version,
		Licenses: &cyclonedx.Licenses{
			{License: &cyclonedx.License{ID: "Apache-2.0"}},
		},
	}
	components := []cyclonedx.Component{{
		BOMRef: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go"),
		Type:   cyclonedx.ComponentTypeLibrary, Name: "std", Version: info.GoVersion,
		PackageURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go"),
	}}
	for _, m := range info.Deps {
		c, err := component(m)
		if err != nil {
			return nil, fmt.Errorf("bill of materials: %w", err)
		}
		components = append(components, c)
	}
	slices.SortFunc(components, func(a, b cyclonedx.Component) int {
		return strings.Compare(a.BOMRef, b.BOMRef)
	})
	var refs []string
	for _, c := range components {
		refs = append(refs, c.BOMRef)
	}
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{Component: larder}
	bom.Components = &components
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: larder.BOMRef, Dependencies: &refs}}
	var out bytes.Buffer
	err = cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
	if err != nil {
		return nil, fmt.Errorf("bill of materials: %w", err)
	}
	return out.Bytes(), nil
}

// component describes a module; of a replaced one its replacement.
func component(m *debug.Module) (cyclonedx.Component, error) {
	if m.Replace != nil {
		m = m.Replace
	}
	url := "pkg:golang/" + m.Path + "@" + m.Version
	c := cyclonedx.Component{
		BOMRef: url, Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version,
		PackageURL: url,
	}
	// The h1: sum of go.sum is a SHA-256 over the names and hashes of the module's files.
	if sum, ok := strings.CutPrefix(m.Sum, "h1:"); ok {
		raw, err := base64.StdEncoding.DecodeString(sum)
		if err != nil {
			return c, fmt.Errorf("%s: sum %q: %w", m.Path, m.Sum, err)
		}
		c.Hashes = &[]cyclonedx.Hash{
			{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(raw)},
		}
	}
	return c, nil
}
