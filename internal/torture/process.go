package torture

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
	stdin  io.Closer // its end tells the child to stop
	stderr bytes.Buffer
}

// start starts a child: this binary, in which Main finds the order.
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

// read takes in a line that a child wrote.
func (s *supervisor) read(name string, line []byte) {
	var r report
	if err := json.Unmarshal(line, &r); err != nil {
		s.broke(name, fmt.Errorf("wrote %q", line))
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

// kill kills p at whatever instruction it is.
func (s *supervisor) kill(p *process) {
	s.ledger.add(Entry{By: p.name, Did: Killed})
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	s.listen(p)
}

// stop lets p finish what it does.
func (s *supervisor) stop(p *process) {
	p.stdin.Close()
	timer := time.AfterFunc(2*patience, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	if err := p.cmd.Wait(); err != nil {
		s.broke(p.name, fmt.Errorf("it did not stop in peace: %w", err))
	}
	s.listen(p)
}

// listen notes a child's complaints: it has none unless something is wrong.
func (s *supervisor) listen(p *process) {
	if p.stderr.Len() > 0 {
		s.broke(p.name, fmt.Errorf("it says: %s", &p.stderr))
	}
}

// lines calls each for every whole line that is written to it.
type lines struct {
	each func(line []byte)
	rest []byte
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
