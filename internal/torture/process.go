package torture

// Rules for concurrency. Only keepKilling starts, kills and stops processes. It
// never does two of these to one process at once. exec.Cmd copies the standard
// output and the standard error in goroutines of its own, so read runs in one of
// these. Wait returns after they have ended. So stderr is used only after Wait.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// A process is a child as its supervisor sees it.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.Closer // the child stops when this is closed
	stderr bytes.Buffer
}

// start starts a child: this binary again, with the order in its environment for
// Main.
func (s *supervisor) start(o order) *process {
	s.started++
	o.Name = fmt.Sprintf("child-%d", s.started)
	p := &process{name: o.Name}
	told, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	p.cmd = exec.Command(self)
	p.cmd.Env = append(os.Environ(), orderVariable+"="+string(told))
	p.cmd.Stdout = &lines{each: func(line []byte) { s.read(p.name, line) }}
	p.cmd.Stderr = &p.stderr
	if p.stdin, err = p.cmd.StdinPipe(); err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		panic(fmt.Sprintf("cannot start this binary again: %v", err))
	}
	return p
}

// read handles one line that a child wrote.
func (s *supervisor) read(name string, line []byte) {
	var r report
	if err := json.Unmarshal(line, &r); err != nil {
		s.broke(name, fmt.Errorf("wrote a line that is no report: %q", line))
		return
	}
	if r.Entry != nil {
		s.ledger.add(*r.Entry)
	}
	if r.Counts != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.counts[name] = *r.Counts
	}
}

// kill kills p at any instruction.
func (s *supervisor) kill(p *process) {
	s.ledger.add(Entry{By: p.name, Did: Killed})
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	s.readErrors(p)
}

// stop tells p to stop, and lets it finish what it is doing.
func (s *supervisor) stop(p *process) {
	p.stdin.Close()
	timer := time.AfterFunc(2*patience, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	if err := p.cmd.Wait(); err != nil {
		s.broke(p.name, fmt.Errorf("did not stop cleanly: %w", err))
	}
	s.readErrors(p)
}

// readErrors notes what a child wrote to its standard error. A child writes there
// only if something is wrong.
func (s *supervisor) readErrors(p *process) {
	if p.stderr.Len() > 0 {
		s.broke(p.name, fmt.Errorf("wrote to its standard error: %s", &p.stderr))
	}
}

// lines is a writer that calls each for every complete line.
type lines struct {
	each func(line []byte)
	rest []byte // of an incomplete line
}

func (l *lines) Write(data []byte) (int, error) {
	l.rest = append(l.rest, data...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found {
			return len(data), nil
		}
		l.each(line)
		l.rest = rest
	}
}
