package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"
)

// processes are copies of this program that run as workers.
type processes struct {
	all []*process // includes the killed ones, because their requests count

	mu sync.Mutex // guards the field last of every process
}

type process struct {
	job   job
	cmd   *exec.Cmd
	stdin io.Closer
	over  bool       // killed, or stopped
	ended chan error // receives one value: the error with which it ended, or nil

	last count // the last report
}

// stopTimeout bounds how long a worker may take to finish its last requests.
const stopTimeout = 10 * time.Second

// start starts a process. The process ends when its standard input ends, so it
// does not outlive this program.
func (ps *processes) start(j job) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	encoded, err := json.Marshal(j)
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), jobVariable+"="+string(encoded))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &process{job: j, cmd: cmd, stdin: stdin, ended: make(chan error, 1)}
	ps.all = append(ps.all, p)
	go func() { p.ended <- ps.follow(p, stdout) }()
	return nil
}

// follow reads the reports of p until p ends.
func (ps *processes) follow(p *process, stdout io.Reader) error {
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		var c count
		if json.Unmarshal(lines.Bytes(), &c) == nil { // otherwise p was killed while it wrote the line
			ps.mu.Lock()
			p.last = c
			ps.mu.Unlock()
		}
	}
	return p.cmd.Wait()
}

// kill kills p without a warning and waits until p has ended.
func (p *process) kill() {
	p.over = true
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// stop lets all processes finish their requests and waits until they have ended.
func (ps *processes) stop() error {
	running := slices.DeleteFunc(slices.Clone(ps.all), func(p *process) bool { return p.over })
	for _, p := range running {
		p.stdin.Close()
	}
	var first error
	timeout := time.After(stopTimeout)
	for _, p := range running {
		var err error
		select {
		case err = <-p.ended:
		case <-timeout:
			p.kill()
			err = fmt.Errorf("did not end within %v", stopTimeout)
		}
		p.over = true
		if err != nil && first == nil {
			first = fmt.Errorf("process %d: %w", p.cmd.Process.Pid, err)
		}
	}
	return first
}

// done returns the sum of the last reports of all processes.
func (ps *processes) done() count {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var sum count
	for _, p := range ps.all {
		sum.Requests += p.last.Requests
		sum.Failures += p.last.Failures
		sum.Interrupted += p.last.Interrupted
		sum.LongestWait = max(sum.LongestWait, p.last.LongestWait)
		if sum.Failure == "" {
			sum.Failure = p.last.Failure
		}
	}
	return sum
}
