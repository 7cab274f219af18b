package storetest

import (
	"fmt"
	"strings"
	"testing"
)

// oddKeys are keys that some store might take for another one, for a path, for
// a pattern, or for something of its own.
var oddKeys = []string{
	"a", "A", " a", "a ", "a.", ".a", "a\t", "a\n", "a\nb",
	"ä", "a\u0308", "Ä", "å", "ß", "ss", "日本", "😀",
	".", "..", "../a", "a/..", "/a", "a/", "a/b", "a//b", `a\b`, `..\a`, "../../etc/passwd",
	"CON", "con", "nul.txt", "a:b", "C:a", "~", "$HOME", "-", "--", "-rf",
	"*", "?", "%", "_", "a%2Fb", "a=2fb", "{a}", "[a]", "#", "'", `"`, "';--", "`", "<a>", "|", "&",
	"null", "0", "00", "1e0", "1",
	"tombstone", "deleted", "a.tmp", ".tmp", "a.draft", "new-1", "k-a", "h-a", "a.json", "a.lock",
	strings.Repeat("k", 300), strings.Repeat("k", 299) + "l", strings.Repeat("K", 300),
	"l" + strings.Repeat("k", 299), strings.Repeat("/", 300), strings.Repeat("ä", 150),
}

func oddKeysDoNotCollide(t *testing.T, s store) {
	version := func(i int) string { return fmt.Sprintf("v%d", i) }
	for i, key := range oddKeys {
		s.save(t, key, version(i), "")
	}
	for i, key := range oddKeys {
		s.want(t, key, version(i))
	}
	for i, key := range oddKeys {
		if i%2 == 0 {
			s.delete(t, key)
		}
	}
	for i, key := range oddKeys {
		if i%2 == 0 {
			s.wantNone(t, key)
		} else {
			s.want(t, key, version(i))
		}
	}
}
