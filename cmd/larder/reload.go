package main

import (
	"bytes"
	"context"
	"time"

	"larder/internal/bucket"
	"larder/internal/config"
	"larder/internal/reload"
	"larder/internal/requestlog"
	"larder/store/catalog"
)

// reloadable returns the files whose changes need no restart. Everything else is read once.
func (g *gateway) reloadable() []reload.Unit {
	conf := g.conf
	var units []reload.Unit
	add := func(kind string, load func(context.Context) error, files ...string) {
		units = append(
			units, reload.Unit{Kind: kind, Files: func() []string { return files }, Load: load},
		)
	}
	if f := webFile(conf.http.configFile); f != "" {
		// The HTTP server reads the file by itself for each request, and rejects requests while the
		// file is invalid. This unit reports errors, and changes that need a restart.
		units = append(
			units,
			reload.Unit{Kind: "http", Files: f.files, Load: func(context.Context) error {
				now, err := f.check(time.Now())
				if err == nil {
					err = f.wrap(conf.http.fixed.changed(now))
				}
				return err
			}},
		)
	}
	if c := g.rpc.certs; c != nil {
		add("grpc-tls", func(context.Context) error { return c.reload() }, conf.grpc.tls.files()...)
	}
	for _, m := range []struct {
		kind   string
		yaml   content
		remote *config.Memcached
	}{
		{"index-cache-tls", conf.caches.indexYAML, conf.caches.IndexRemote},
		{"caching-bucket-tls", conf.caches.bucketYAML, conf.caches.ChunkRemote},
	} {
		if m.remote != nil && m.remote.Certificate != nil {
			add(m.kind, func(context.Context) error {
				return m.yaml.wrap(m.remote.WrapTLS(m.remote.Certificate.Reload(time.Now())))
			}, m.remote.Certificate.Files()...)
		}
	}
	if c := conf.requestLog.yaml; c.path != "" {
		add("request-logging", func(context.Context) error {
			b, err := c.reread()
			if err != nil {
				return err
			}
			parsed, err := requestlog.Parse(b)
			if err != nil {
				return c.wrap(err)
			}
			g.requests.Set(parsed)
			return nil
		}, c.path)
	}
	if c := conf.requests.tenantsYAML; c.path != "" {
		add("limits", func(context.Context) error {
			b, err := c.reread()
			if err != nil {
				return err
			}
			l, err := parseLimits(b, conf.requests.flagLimits())
			if err != nil {
				return c.wrap(err)
			}
			g.backend.server.SetLimits(l.others, l.tenants)
			return nil
		}, c.path)
	}
	if c := &conf.budgets; c.yaml.path != "" {
		add("latency-budgets", func(context.Context) error {
			d, err := c.reload()
			if err == nil {
				g.backend.setBudgets(d)
			}
			return err
		}, c.yaml.path)
	}
	credentials := func(kind string, c content, stack *bucket.Stack) {
		if c.path == "" || stack == nil {
			return
		}
		add(kind, func(ctx context.Context) error {
			b, err := c.reread()
			if err != nil {
				return err
			}
			parsed, err := bucket.Parse(b)
			if err == nil {
				err = stack.Replace(ctx, parsed)
			}
			return c.wrap(err)
		}, c.path)
	}
	credentials("objstore", conf.bucket.yaml, g.backend.blocks)
	credentials("objstore-parquet", conf.bucket.parquetYAML, g.backend.parquet)
	if conf.shard.file != "" {
		units = append(units, g.backend.reloadShard())
	}
	if c := conf.blocks.relabelYAML; c.path != "" {
		inUse := conf.blocks.relabelText
		add("relabel", func(context.Context) error {
			b, err := c.reread()
			if err != nil || bytes.Equal(b, inUse) { // do not list the bucket for equal rules
				return err
			}
			rules, err := catalog.ParseRelabelConfig(b)
			if err == nil {
				err = g.backend.catalog.Reselect(rules)
			}
			if err != nil {
				return c.wrap(err)
			}
			inUse = b
			return nil
		}, c.path)
	}
	return units
}
