package cli

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progressFrom is from which size, in bytes, a body gets a bar.
const progressFrom = 1 << 20

// A progress shows a bar on the terminal while a large body is on its way. The goroutine
// of the command and those of net/http that send a body use it.
type progress struct {
	terminal *os.File // nil: no bar is shown

	mu  sync.Mutex
	bar *progressbar.ProgressBar // mu; nil: none is shown now
}

// newProgress returns a progress on standard error, if that is a terminal.
func (a *app) newProgress() *progress { return &progress{terminal: terminal(a.Err)} }

// watch returns r with a bar. size is in bytes; -1: nobody knows.
func (p *progress) watch(r io.ReadCloser, what string, size int64) io.ReadCloser {
	if p.terminal == nil || 0 <= size && size < progressFrom {
		return r
	}
	p.clear() // of what was sent before a replay
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bar = progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(p.terminal),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowCount(),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionSetWidth(10), // the whole line fits into 80 columns
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetRenderBlankState(true),
		progressbar.OptionSetSpinnerChangeInterval(0), // otherwise it starts a goroutine
		progressbar.OptionClearOnFinish(),
	)
	return watched{r, p.bar}
}

// A watched is a body with a bar.
type watched struct {
	io.ReadCloser
	bar *progressbar.ProgressBar
}

func (w watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	_ = w.bar.Add(n) // the call goes on if the bar cannot be drawn
	return n, err
}

// clear removes the bar.
func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Exit() // nobody needs the bar
		_ = p.bar.Clear()
		p.bar = nil
	}
}
