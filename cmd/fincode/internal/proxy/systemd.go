package proxy

import (
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// A systemd tells systemd how the proxy is, if systemd has started it (NOTIFY_SOCKET). Its
// watchdog restarts a proxy that tells nothing for WATCHDOG_USEC.
type systemd struct {
	log     *slog.Logger
	stopped chan struct{}
	ended   sync.WaitGroup
}

func newSystemd(log *slog.Logger) *systemd {
	s := &systemd{log: log, stopped: make(chan struct{})}
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog is not used", "error", err)
	}
	if every > 0 {
		s.ended.Go(func() { s.watchdog(every / 2) })
	}
	return s
}

func (s *systemd) stop() {
	close(s.stopped)
	s.ended.Wait()
}

func (s *systemd) watchdog(every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		s.tell(daemon.SdNotifyWatchdog)
		select {
		case <-ticker.C:
		case <-s.stopped:
			return
		}
	}
}

// tell sends lines such as "READY=1".
func (s *systemd) tell(lines string) {
	if _, err := daemon.SdNotify(false, lines); err != nil {
		s.log.Warn("systemd was not told", "error", err)
	}
}
