package browser

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	devpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// patience bounds the life of a browser. It is long, because a loaded machine needs minutes for
// what takes seconds otherwise.
const patience = 5 * time.Minute

// Browser is a Chromium with one tab, in which no script of a page runs.
type Browser struct {
	tb      testing.TB
	ctx     context.Context
	console func() (chromedp.ConsoleMessage, error, bool)
	markers int
}

// Start starts a Chromium, which ends with the test. Without one the test is skipped or, with
// LARDER_REQUIRE, fails.
func Start(tb testing.TB) *Browser {
	tb.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("LARDER_REQUIRE") != "" {
			tb.Fatalf("%v: make setup installs it", err)
		}
		tb.Skipf("%v: make setup installs it", err)
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.UserDataDir(tb.TempDir()),
		chromedp.NoSandbox, // tests may run as root
		chromedp.WSURLReadTimeout(time.Minute),
	)
	ctx, stop := context.WithTimeout(tb.Context(), patience)
	tb.Cleanup(stop)
	ctx, stop = chromedp.NewExecAllocator(ctx, opts...)
	tb.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	tb.Cleanup(stop)
	b := &Browser{tb: tb, ctx: ctx}
	_, err = chromedp.Call(ctx, emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: true})
	b.must(err)
	next, end := iter.Pull2(chromedp.Console(ctx))
	tb.Cleanup(end)
	b.console = next
	return b
}

func (b *Browser) must(err error) {
	b.tb.Helper()
	if err != nil {
		b.tb.Fatal(err)
	}
}

// Open opens an address.
func (b *Browser) Open(url string) {
	b.tb.Helper()
	b.must(chromedp.Do(b.ctx, chromedp.Navigate(url)))
}

// Show changes the width of the window in pixels, and the color scheme: "light" or "dark".
func (b *Browser) Show(width int64, scheme string) {
	b.tb.Helper()
	b.must(chromedp.Do(b.ctx, chromedp.EmulateViewport(width, 900)))
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	b.must(err)
}

// Eval returns the value of an expression of JavaScript in the page.
func Eval[T any](b *Browser, expression string) T {
	b.tb.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	b.must(err)
	return v
}

// Text returns the text that the page shows.
func (b *Browser) Text() string {
	b.tb.Helper()
	return Eval[string](b, `document.body.innerText`)
}

// Submit fills in the first form of the page, submits it, and waits for the next page.
func (b *Browser) Submit(field, value string) {
	b.tb.Helper()
	script := fmt.Sprintf(`{
		const form = document.forms[0];
		form.elements[%q].value = %q;
		form.requestSubmit();
	}`, field, value)
	submit := chromedp.Evaluate[chromedp.Void](script)
	_, err := chromedp.RunResponse(b.ctx, submit)
	b.must(err)
}

// Errors returns the errors and warnings on the console since the last call.
func (b *Browser) Errors() (out []string) {
	b.tb.Helper()
	b.markers++
	marker := "marker " + strconv.Itoa(b.markers)
	Eval[any](b, `console.debug("`+marker+`")`)
	for {
		m, err, ok := b.console()
		if !ok {
			err = errors.New("the console has ended")
		}
		b.must(err)
		switch m.Type {
		case chromedp.ConsoleError, chromedp.ConsoleWarning, chromedp.ConsoleException:
			out = append(out, m.String()+" "+m.URL)
		case chromedp.ConsoleDebug:
			if m.Text == marker {
				return out
			}
		}
	}
}

// maxHeight bounds the height of a picture in pixels. Chromium does not draw more than 16,384.
const maxHeight = 12_000

// Save writes a picture of the page, from its top.
func (b *Browser) Save(path string) {
	b.tb.Helper()
	type size struct {
		Width  float64 `json:"width"`
		Height float64 `json:"height"`
	}
	page := Eval[size](b, `{
		const {clientWidth: width, scrollHeight: height} = document.documentElement;
		({width, height});
	}`)
	whole := true
	got, err := chromedp.Call(b.ctx, devpage.CaptureScreenshot, devpage.CaptureScreenshotParams{
		CaptureBeyondViewport: &whole,
		Clip: &devpage.Viewport{
			Width: page.Width, Height: min(page.Height, maxHeight), Scale: 1,
		},
	})
	b.must(err)
	b.must(os.MkdirAll(filepath.Dir(path), 0o755))
	b.must(os.WriteFile(path, got.Data, 0o600))
}
