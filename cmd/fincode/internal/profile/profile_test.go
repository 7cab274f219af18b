package profile

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
)

func TestSavedProfileIsLoaded(t *testing.T) {
	s := At(filepath.Join(t.TempDir(), "state"))
	if _, err := s.Load("default"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load = %v, want fs.ErrNotExist", err)
	}
	want := Profile{Name: "default", URL: "https://a", Session: "s", Store: "redis://h", Plain: true, Email: "e", PublicKey: "k"}
	if err := save(s, want); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load("default"); err != nil || got != want {
		t.Errorf("Load = %#v, %v", got, err)
	}
	if err := save(s, Profile{Name: "b", URL: "https://b"}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.Folder("without", "sessions"), 0o700); err != nil {
		t.Fatal(err)
	}
	if names, err := s.Names(); err != nil || !slices.Equal(names, []string{"b", "default"}) {
		t.Errorf("Names = %v, %v", names, err)
	}
	if err := s.Remove("b"); err != nil {
		t.Fatal(err)
	}
	if names, err := s.Names(); err != nil || !slices.Equal(names, []string{"default"}) {
		t.Errorf("Names = %v, %v", names, err)
	}
	if names, err := At("/nowhere").Names(); err != nil || names != nil {
		t.Errorf("Names = %v, %v; want none", names, err)
	}
}

// save drafts a profile and keeps it.
func save(s State, p Profile) error {
	d, err := s.Draft(p)
	if err != nil {
		return err
	}
	return d.Keep()
}

func TestDroppedDraftLeavesTheProfile(t *testing.T) {
	s := At(t.TempDir())
	if err := save(s, Profile{Name: "p", URL: "https://old"}); err != nil {
		t.Fatal(err)
	}
	d, err := s.Draft(Profile{Name: "p", URL: "https://new"})
	if err != nil {
		t.Fatal(err)
	}
	d.Drop()
	if got, err := s.Load("p"); err != nil || got.URL != "https://old" {
		t.Errorf("Load = %#v, %v; want the old profile", got, err)
	}
	if entries, _ := os.ReadDir(s.Folder("p", ".")); len(entries) != 1 {
		t.Errorf("the folder has %v, want the profile alone", entries)
	}
}

// TestNamesThatAreNoFolderAreRefused: none may lead out of the state folder.
func TestNamesThatAreNoFolderAreRefused(t *testing.T) {
	s := At(t.TempDir())
	for _, name := range []string{"", ".", "..", "../x", "a/b", `a\b`, "-x", ".x", "a.", "a b", "a\n", "ä", strings.Repeat("a", 65)} {
		_, loadErr := s.Load(name)
		for what, err := range map[string]error{"CheckName": CheckName(name), "Load": loadErr, "Save": save(s, Profile{Name: name}), "Remove": s.Remove(name)} {
			if e, ok := errors.AsType[*failure.Error](err); !ok || e.Status != failure.Usage {
				t.Errorf("%s(%q) = %v, want a usage error", what, name, err)
			}
		}
	}
	for _, name := range []string{"a", "default", "prod-2.eu_west", strings.Repeat("a", 64)} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
}

func TestDamagedProfileIsNamedAndNotShown(t *testing.T) {
	s := At(t.TempDir())
	if err := save(s, Profile{Name: "p"}); err != nil {
		t.Fatal(err)
	}
	path := s.Folder("p", "profile.json")
	for _, text := range []string{"", "{", `"s3cret"`, `{"url": 5}`, `{"store": "redis://:s3cret@h`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.Load("p")
		if e, ok := errors.AsType[*failure.Error](err); !ok || e.Status != failure.Local || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: Load = %v", text, err)
		}
	}
}

func TestProfileIsNotPrintedWithItsStore(t *testing.T) {
	p := Profile{Name: "p", URL: "https://a", Store: "redis://:s3cret@h"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		if got := fmt.Sprintf(verb, p); got != "Profile(p, https://a)" {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

func TestAddressIsShownWithoutItsPassword(t *testing.T) {
	for address, want := range map[string]string{
		"postgres://app:s3cret@host/db":           "postgres://app:xxxxx@host/db",
		"postgres://app@host/db?password=s3cret":  "postgres://app@host/db?…",
		"postgres://app:s3cret%zz@host/db":        "(a store whose address cannot be read)",
		"postgres://app:s3/cret@host/db":          "(a store whose address cannot be read)",
		"redis://:s3cret@host/0":                  "redis://:xxxxx@host/0",
		"etcds://app:s3cret@a:1,b:2/p?cacert=/f":  "etcds://app:xxxxx@a:1,b:2/p?…",
		"kubernetes://ns":                         "kubernetes://ns",
		"dir:/var/lib/fincode":                    "dir:/var/lib/fincode",
		"postgres://app@host/db":                  "postgres://app@host/db",
		"host=h user=app password=s3cret dbname=": "(a store whose address cannot be read)",
	} {
		if got := Redacted(address); got != want {
			t.Errorf("Redacted(%q) = %q, want %q", address, got, want)
		}
	}
}

func TestStoreThatCannotBeOneIsRefused(t *testing.T) {
	for _, address := range []string{"mysql://app:s3cret@h/d", "s3cret", "dir:", "dir:rel", "dir:~/x", "postgres://app:s3cret%zz@h/d", "postgres://a:s3/cret@h/d",
		"host=h password=s3cret", "postgres:s3cret", "POSTGRES//s3cret",
		"etcd:s3cret", "etcd://s3cret@h", "etcd://u:s3cret@", "etcd://u:s3cret@h:1,/p", "etcd://u:s3cret@h?cacert=/f", "etcds://u:s3cret@h?cert=/f", "etcds://h?password=s3cret", "etcds://h?cacert=", "etcds://h?cacert=/f&cacert=/g",
		"etcds://h?cacert=/f;cert=/g", "etcd://h?s3cret=%zz", "etcd://app:1234#s3cret@h", "kubernetes://ns?proxy=127.0.0.1:1;prefix=s3cret", "kubernetes://ns#s3cret",
		"kubernetes:s3cret", "kubernetes://", "kubernetes://u:s3cret@ns", "kubernetes://ns:443", "kubernetes://ns/s3cret", "kubernetes://ns?token=s3cret", "kubernetes://ns?proxy=http://127.0.0.1:8001"} {
		err := CheckStore(address)
		if e, ok := errors.AsType[*failure.Error](err); !ok || e.Status != failure.Usage || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("CheckStore(%q) = %v, want a usage error without the password", address, err)
		}
	}
	for _, address := range []string{"", "dir:/a", "dir:///a", "postgres://u@h/d", "postgresql://u:p@h:5/d?sslmode=disable", "redis://h", "rediss://:p@h:6380/1", "postgres:///d?host=/run/postgresql",
		"etcd://h", "etcd://u:p@h:1,h2:2/apps/fincode", "etcds://[::1]:2379?cacert=/f&cert=/g&key=/h", "kubernetes://ns", "kubernetes://ns/?proxy=127.0.0.1:8001&prefix=a-"} {
		if err := CheckStore(address); err != nil {
			t.Errorf("CheckStore(%q) = %v", address, err)
		}
	}
}

func TestAddressOfEtcdNamesItsMembersAndPrefix(t *testing.T) {
	for address, want := range map[string]string{
		"etcd://h":                        "[h:2379] fincode/",
		"etcd://h/":                       "[h:2379] fincode/",
		"etcd://h:/x":                     "[h:2379] x",
		"etcds://u:p@a:1,b,c:2/x":         "[a:1 b:2379 c:2] x",
		"etcd://[::1]:1//app/sessions/":   "[[::1]:1] /app/sessions/",
		"etcds://h:1/app/x%20y?cacert=/f": "[h:1] app/x y",
	} {
		u, err := url.Parse(address)
		if err != nil || CheckStore(address) != nil {
			t.Fatal(err, CheckStore(address))
		}
		if got := fmt.Sprint(endpoints(u), " ", prefixOf(u)); got != want {
			t.Errorf("%s is %s, want %s", address, got, want)
		}
	}
}

func TestReaderSeesAWholeProfileWhileItIsSaved(t *testing.T) {
	s := At(t.TempDir())
	save := func(i int) error {
		return save(s, Profile{Name: "p", URL: "https://" + strings.Repeat("x", i*100)})
	}
	if err := save(0); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			for range 20 {
				if err := save(i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		if _, err := s.Load("p"); err != nil {
			t.Fatal(err)
		}
	}
}
