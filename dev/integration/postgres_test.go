package integration

import (
	"cmp"
	"context"
	"database/sql"
	"net"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// A postgresServer is a PostgreSQL that a test has for itself, with its backups.
// PostgreSQL refuses to run as root, so root runs it as the user postgres.
type postgresServer struct {
	*server
	dir      string // with the data and the backups
	programs string // the directory of initdb, postgres and pg_basebackup
	dsn      string
}

// startPostgres starts a PostgreSQL without any table.
func startPostgres(t *testing.T) *postgresServer {
	t.Helper()
	programs, as := postgresPrograms(t), postgresUser(t)
	// Not t.TempDir, which only its owner may enter.
	dir, err := os.MkdirTemp("", "fincodeauth-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if as != nil {
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	p := &postgresServer{dir: dir, programs: programs, dsn: "postgres://postgres@" + addr + "/postgres"}
	p.server = newServer(t, "PostgreSQL", addr, filepath.Join(programs, "postgres"), "-p", port,
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "fsync=off") // the machine does not fail, only the program
	p.as = as
	p.run(t, "initdb", "-U", "postgres", "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8", "-D", p.data("data"))
	p.startFrom(t, "data")
	return p
}

// data returns the directory of the data called name.
func (p *postgresServer) data(name string) string { return filepath.Join(p.dir, name) }

// startFrom starts PostgreSQL on the data called name, and waits until it answers.
func (p *postgresServer) startFrom(t *testing.T, name string) {
	t.Helper()
	p.start(t, "-D", p.data(name))
	db, err := sql.Open(postgres.driver, p.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	eventually(t, "PostgreSQL accepts connections", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return db.PingContext(ctx) == nil
	})
}

// backUp makes a base backup called name.
func (p *postgresServer) backUp(t *testing.T, name string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(p.addr)
	p.run(t, "pg_basebackup", "-h", host, "-p", port, "-U", "postgres", "-c", "fast", "--no-sync", "-D", p.data(name))
}

// restore stops PostgreSQL at once, and starts it on the backup called name. A backup
// can be restored once.
func (p *postgresServer) restore(t *testing.T, name string) {
	t.Helper()
	p.stop(syscall.SIGQUIT) // "immediate": no connection is closed properly
	p.startFrom(t, name)
}

// run runs one of PostgreSQL's programs.
func (p *postgresServer) run(t *testing.T, program string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(p.programs, program), args...)
	cmd.Dir = os.TempDir()
	if p.as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	}
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, output)
	}
}

// postgresPrograms returns the directory of PostgreSQL's programs. Debian has one for
// each version, and elsewhere they are in the path.
func postgresPrograms(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is right
	if len(found) > 0 {
		return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { // 9.6 is older than 15
			return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
		}))
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		missing(t, "no initdb in /usr/lib/postgresql or in the path: %v; install PostgreSQL", err)
	}
	return filepath.Dir(path)
}

// postgresUser returns who runs PostgreSQL: nil for whoever runs the test.
func postgresUser(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := osuser.Lookup("postgres")
	if err != nil {
		missing(t, "no user to run PostgreSQL, which refuses to run as root: %v; install PostgreSQL", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}
