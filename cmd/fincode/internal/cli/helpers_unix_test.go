//go:build unix

package cli

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"
)

// A console is a terminal with the command in it.
type console struct {
	*user
	cmd    *exec.Cmd
	keys   *os.File // what is written here is typed
	screen vt10x.Terminal

	mu   sync.Mutex
	raw  bytes.Buffer  // mu: all that was printed
	done chan struct{} // closed when nothing more is printed
}

// console starts the built command in a terminal of that size.
func (u *user) console(cols, rows int, cmd *exec.Cmd) *console {
	u.Helper()
	keys, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: uint16(cols), Rows: uint16(rows)})
	if err != nil {
		u.Fatal(err)
	}
	c := &console{user: u, cmd: cmd, keys: keys, screen: vt10x.New(vt10x.WithSize(cols, rows)), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		io.Copy(c, keys)
	}()
	u.Cleanup(func() {
		cmd.Process.Kill()
		keys.Close()
		<-c.done
	})
	return c
}

// Write gets what the command prints.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.raw.Write(p)
	c.mu.Unlock()
	return c.screen.Write(p)
}

// text returns what is on the screen, without spaces at the ends of lines.
func (c *console) text() string {
	lines := strings.Split(c.screen.String(), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " \x00")
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
}

// printed returns everything that was printed, with its control characters.
func (c *console) printed() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.raw.String()
}

// wait waits until the screen has a text.
func (c *console) wait(text string) {
	c.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(c.text(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.Fatalf("within 20 s, there was no %q on the screen:\n%s", text, c.text())
		}
	}
}

func (c *console) press(keys string) {
	c.Helper()
	if _, err := c.keys.WriteString(keys); err != nil {
		c.Fatal(err)
	}
}

// end waits for the command's end, and returns its status.
func (c *console) end() int {
	c.Helper()
	status := c.statusOf(c.cmd.Wait())
	select {
	case <-c.done:
	case <-time.After(5 * time.Second):
		c.Fatal("the terminal is still in use")
	}
	return status
}
