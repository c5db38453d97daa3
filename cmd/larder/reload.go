package main

import (
	"bytes"
	"time"

	"larder/internal/reload"
	"larder/internal/requestlog"
	"larder/store/catalog"
)

// reloadable are the files that flags name and whose changes need no restart. Everything else that flags and files say is read once.
func (g *gateway) reloadable() []reload.Unit {
	conf := g.conf
	var units []reload.Unit
	add := func(kind string, load func() error, files ...string) {
		units = append(units, reload.Unit{Kind: kind, Files: func() []string { return files }, Load: load})
	}
	if f := webFile(conf.http.configFile); f != "" {
		// The HTTP server reads it by itself, for each request: a bad one closes the door until it is mended. This says so, and what the
		// server does not take from it any more.
		units = append(units, reload.Unit{Kind: "http", Files: f.files, Load: func() error {
			now, err := f.check(time.Now())
			if err == nil {
				err = f.wrap(conf.webFixed.changed(now))
			}
			return err
		}})
	}
	if c := g.rpc.certs; c != nil {
		add("grpc-tls", c.reload, conf.grpc.tls.files()...)
	}
	if c := conf.requestLogYAML; c.path != "" {
		add("request-logging", func() error {
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
	if c := conf.objstoreYAML; c.path != "" {
		add("objstore", func() error {
			b, err := c.reread()
			if err != nil {
				return err
			}
			parsed, err := parseBucket(b)
			if err == nil {
				err = g.backend.client.replace(parsed)
			}
			return c.wrap(err)
		}, c.path)
	}
	if c := conf.relabelYAML; c.path != "" {
		inUse := conf.relabelText
		add("relabel", func() error {
			b, err := c.reread()
			if err != nil || bytes.Equal(b, inUse) { // equal rules are no reason to list the bucket
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
