package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// options decide the image, together with the sources and the toolchain.
type options struct {
	root, out         string
	version, revision string
	created           time.Time
	platforms         []v1.Platform
}

// labels are those of the OCI image specification. Config and index have them.
func (o options) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       "larder",
		"org.opencontainers.image.description": "Store gateway for Thanos",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     o.version,
		"org.opencontainers.image.revision":    o.revision,
		"org.opencontainers.image.created":     o.created.Format(time.RFC3339),
	}
}

// write builds the images and writes them as an OCI layout with one index, whose digest it returns.
func write(o options) (v1.Hash, error) {
	if err := removeLayout(o.out); err != nil { // before minutes of compiling
		return v1.Hash{}, err
	}
	work, err := os.MkdirTemp("", "larder-image-")
	if err != nil {
		return v1.Hash{}, err
	}
	defer os.RemoveAll(work)
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range o.platforms {
		img, err := build(o, p, filepath.Join(work, p.Architecture))
		if err != nil {
			return v1.Hash{}, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{MediaType: types.OCIManifestSchema1, Platform: &p},
		})
	}
	index = mutate.Annotations(index, o.labels()).(v1.ImageIndex)
	to, err := layout.Write(o.out, empty.Index)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("write the layout: %w", err)
	}
	// The name by which tools choose among the images of a layout.
	name := map[string]string{"org.opencontainers.image.ref.name": o.version}
	if err := to.AppendIndex(index, layout.WithAnnotations(name)); err != nil {
		return v1.Hash{}, fmt.Errorf("write the layout: %w", err)
	}
	return index.Digest()
}

// removeLayout removes an earlier layout. It refuses to remove a folder with anything else.
func removeLayout(out string) error {
	entries, err := os.ReadDir(out)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(out, "oci-layout")); err != nil {
		return fmt.Errorf("--out: %s has files, but no image: name another folder", out)
	}
	return os.RemoveAll(out)
}

// build makes the image of one platform. The binary is compiled to path.
func build(o options, p v1.Platform, path string) (v1.Image, error) {
	if err := compile(o, p, path); err != nil {
		return nil, err
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	bom, err := billOfMaterials(binary, o.version)
	if err != nil {
		return nil, err
	}
	licence, err := os.ReadFile(filepath.Join(o.root, "LICENSE"))
	if err != nil {
		return nil, err
	}
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for _, l := range []struct {
		files []file
		made  string
	}{
		{baseFiles(), "root certificates, users, data directory"},
		{larderFiles(binary, bom, licence), "larder, bill of materials, licence"},
	} {
		layer, err := layer(l.files, o.created)
		if err != nil {
			return nil, err
		}
		img, err = mutate.Append(img, mutate.Addendum{
			Layer:   layer,
			History: v1.History{Created: v1.Time{Time: o.created}, CreatedBy: l.made},
		})
		if err != nil {
			return nil, err
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = p.OS, p.Architecture
	config.Created = v1.Time{Time: o.created}
	config.Config = v1.Config{
		User:         fmt.Sprintf("%d:%d", user, user),
		WorkingDir:   dataDir,
		Entrypoint:   []string{"/bin/larder"},
		Cmd:          []string{"store", "--help"},
		Env:          []string{"PATH=/bin"},
		ExposedPorts: map[string]struct{}{"10901/tcp": {}, "10902/tcp": {}},
		Labels:       o.labels(),
	}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return nil, err
	}
	return mutate.Annotations(img, o.labels()).(v1.Image), nil
}
