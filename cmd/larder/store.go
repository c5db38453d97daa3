package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// storeCommand is `larder store`.
type storeCommand struct {
	cmd  *kingpin.CmdClause
	conf storeConfig
}

// registerStore adds the command and its flags. Thanos's flags for all commands are flags of the
// application, same as in Thanos, so that they may precede the command's name.
func registerStore(app *kingpin.Application) *storeCommand {
	s := &storeCommand{cmd: app.Command("store", "Serve the blocks of a bucket over the StoreAPI.")}
	s.conf.process.flags(app)
	s.conf.storeFlags(s.cmd)
	s.conf.shown = func() map[string]string { return shownFlags(s.cmd.Model().Flags) }
	return s
}

// parseStore parses the arguments of `larder store`, without the command's name. Other commands use
// it to serve a bucket with the same flags, checks and defaults.
func parseStore(args ...string) (*storeConfig, error) {
	app := kingpin.New("larder", "").Terminate(nil)
	s := registerStore(app)
	if _, err := app.Parse(append([]string{"store"}, args...)); err != nil {
		return nil, err
	}
	return &s.conf, nil
}

// run serves until a signal arrives. After SIGTERM, which an orchestrator sends, the process is not
// ready at once but continues to serve for --drain-delay, until queriers have noticed. After
// SIGINT, which a person sends, it does not wait. A second signal ends the process at once. SIGHUP
// reloads configuration files.
func (s *storeCommand) run(stderr io.Writer) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	g, err := newGateway(&s.conf, stderr)
	if err != nil {
		return err
	}
	defer g.close()

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				g.logger.Info("reloading configuration files", "signal", syscall.SIGHUP.String())
				g.reload.Reload()
			}
		}
	}()
	done := make(chan error, 1)
	go func() { done <- g.run(ctx) }()

	var first os.Signal
	select {
	case err := <-done:
		return err
	case first = <-signals:
	}
	g.logger.Info("stopping", "signal", first.String())
	if wasReady := g.probe.Drain(); wasReady && first == syscall.SIGTERM {
		delay := time.NewTimer(s.conf.drainDelay)
		defer delay.Stop()
		select {
		case <-delay.C:
		case err := <-done:
			return err
		case <-signals:
			return errSecondSignal
		}
	}
	stop()
	select {
	case err := <-done:
		g.logger.Info("stopped")
		return err
	case <-signals:
		return errSecondSignal
	}
}

var errSecondSignal = errors.New("stopped by a second signal before running requests had finished")
