package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fincodeauth/fincodeauth"
)

// mustHold is the length of a key, in bytes, that no store may refuse.
const mustHold = 512

// mayRefuse reports whether the comment of Run lets a store refuse key.
func mayRefuse(key string) bool {
	return len(key) > mustHold || !utf8.ValidString(key) || strings.Contains(key, "\x00")
}

// oddKeys are pairs of different keys. For each pair there is a database, a file
// system, an object store or a library that does not see the difference. The
// pairs are grouped by that difference, and a failure names the group.
//
// A store may read some keys as a folder or as a pattern, and remove other keys
// with it. So for each pair, the test deletes one key and looks for the other, both
// ways.
var oddKeys = []struct {
	difference string
	pairs      [][2]string
}{
	// Collations of MySQL and SQL Server, and file systems of Windows and macOS,
	// ignore case.
	{"letter case", [][2]string{
		{"a", "A"}, {"alice@example.com", "Alice@example.com"},
		{"alice@example.org", "alice@Example.org"}, {"con", "CON"},
	}},
	{"letter case beyond ASCII", [][2]string{
		{"ä", "Ä"}, {"я", "Я"}, {"ω", "Ω"}, {"ǆ", "ǅ"}, {"ａ", "Ａ"}, {"\U00010428", "\U00010400"},
	}},
	{"letters with a special rule for case", [][2]string{
		{"ß", "ss"}, {"ẞ", "ß"}, {"i", "ı"}, {"ı", "I"}, {"i", "İ"}, {"I", "İ"}, {"i\u0307", "İ"},
		{"σ", "ς"}, {"s", "ſ"}, {"k", "\u212a"}, {"K", "\u212a"}, {"ŉ", "ʼn"},
	}},

	// SQL's CHAR type and PAD SPACE collations, and Windows in file names, ignore
	// space at the end. Windows also ignores dots there.
	{"space at the end", [][2]string{
		{"a", "a "}, {"a", "a\t"}, {"a", "a\n"}, {"a", "a\r\n"}, {"a", "a\u00a0"}, {"a", "a\u3000"},
		{"a ", "a  "},
	}},
	{"space at the start", [][2]string{
		{"a", " a"}, {"a", "\ta"}, {"a", "\na"}, {"a", "\u00a0a"}, {"a", "\u3000a"},
	}},
	{"space inside", [][2]string{
		{"a b", "a  b"}, {"a b", "ab"}, {"a b", "a\tb"}, {"a b", "a\nb"}, {"a\nb", "a\r\nb"},
		{"a\nb", "a\rb"}, {"a b", "a\u00a0b"}, {"a b", "a_b"},
	}},
	{"nothing but space", [][2]string{{" ", "  "}, {" ", "\t"}, {"\n", "\r"}}},
	{"a dot at the end", [][2]string{{"a", "a."}, {"a.", "a.."}}},
	{"a dot at the start", [][2]string{{"a", ".a"}}},

	// File systems and HTTP servers clean paths. Consul and Vault have folders.
	{"paths", [][2]string{
		{"a/b", "a//b"}, {"a/b", "a/./b"}, {"a/b", "a/c/../b"}, {"a/b", "/a/b"}, {"a/b", "a/b/"},
		{"a", "/a"}, {"a", "a/"}, {"a", "./a"}, {"a", "../a"}, {"a/..", "."}, {".", ".."}, {"/", "//"},
		{"../../etc/passwd", "/etc/passwd"}, {"dir", "dir/file"}, {"dir/", "dir/file2"}, {"a/b", "b"},
	}},

	// Names of files, of Kubernetes objects and of environment variables allow few
	// characters. Stores replace the others.
	{"a slash and what replaces it", [][2]string{
		{"a/b", "a_b"}, {"a/b", "a-b"}, {"a/b", "a.b"}, {"a/b", "a:b"}, {"a/b", "a|b"}, {"a/b", "ab"},
	}},
	{"a dot and what replaces it", [][2]string{
		{"a.b", "a-b"}, {"a.b", "a_b"}, {"a.b", "ab"}, {"alice@example.net", "alice@example-net"},
	}},
	{"an at sign and what replaces it", [][2]string{
		{"bob@example.com", "bob-example.com"}, {"bob@example.com", "bob_example.com"},
		{"bob@example.com", "bob.example.com"},
	}},
	{"a dash and what replaces it", [][2]string{
		{"a-b", "a_b"}, {"a-b", "ab"}, {"-", "_"}, {"-", "--"}, {"a", "-a"}, {"a-b", "a\u2010b"},
		{"a-b", "a\u2212b"},
	}},

	// NTFS cuts a name at a colon, and Redis keys use it as a separator.
	{"a colon", [][2]string{
		{"a", "a:b"}, {"a", "a:"}, {"a:b", "a_b"}, {"a:b", "a::b"}, {"a", "C:a"}, {":a", "a"},
	}},
	{"a backslash", [][2]string{
		{"a/b", `a\b`}, {"ab", `a\b`}, {`a\b`, `a\\b`}, {"a\nb", `a\nb`}, {"a_b", `a\_b`},
		{"../a", `..\a`}, {"a", `a\`},
	}},

	// HTTP clients and servers decode what was never encoded, or encode twice.
	{"percent-encoding", [][2]string{
		{"a/b", "a%2Fb"}, {"a%2Fb", "a%2fb"}, {"a%2Fb", "a%252Fb"}, {"a b", "a%20b"}, {"a b", "a+b"},
		{"a+b", "a%2Bb"}, {"A", "%41"}, {"ä", "%C3%A4"}, {"a", "a%00"}, {"a", "a%"}, {"a%zz", "azz"},
	}},
	{"parts of a URL", [][2]string{
		{"a", "a?b"}, {"a", "a#b"}, {"a", "a;b"}, {"a", "a&b"}, {"a", "a=b"},
		{"a+b@example.com", "a@example.com"},
	}},
	{"other encodings", [][2]string{
		{"a", "=61"}, {"a/b", "a=2fb"}, {"a=b", "a=3Db"}, {"a", "YQ=="}, {"a", "YQ"}, {"a", "61"},
		{"a", "0x61"}, {"a", `\u0061`}, {"a", `\x61`}, {"a&b", "a&amp;b"}, {"a<b", "a&lt;b"},
		{"ä", "xn--4ca"},
	}},

	// C's strings end at NUL, and PostgreSQL's text cannot hold it.
	{"NUL", [][2]string{
		{"ab", "a\x00b"}, {"a", "a\x00"}, {"a", "\x00a"}, {"a\x00b", "a\x00c"}, {"a b", "a\x00b"},
		{"a\x00b", "a\ufffdb"}, {"\x00", "\x00\x00"}, {"a\x00b", `a\0b`},
	}},
	{"control characters", [][2]string{
		{"ab", "a\x01b"}, {"a\x01b", "a\x02b"}, {"ab", "a\x7fb"}, {"ab", "a\bb"}, {"ab", "a\x1b[0mb"},
		{"ab", "a\u0085b"}, {"a", "a\x1a"}, {"a", "a\x04"},
	}},
	{"invisible characters", [][2]string{
		{"ab", "a\u200bb"}, {"ab", "a\u200cb"}, {"ab", "a\u200db"}, {"ab", "a\u200eb"},
		{"ab", "a\u2060b"}, {"ab", "a\u00adb"}, {"a", "\ufeffa"}, {"ab", "a\ufeffb"}, {"☎", "☎\ufe0f"},
		{"ab", "a\U000e0061b"}, {"ab", "a\u2028b"}, {"ab", "a\u115fb"},
	}},

	// macOS normalizes file names. MySQL's default collations ignore accents.
	{"an accent in one character or two", [][2]string{
		{"é", "e\u0301"}, {"ä", "a\u0308"}, {"å", "a\u030a"}, {"å", "\u212b"}, {"Å", "\u212b"},
		{"\u1e69", "s\u0307\u0323"}, {"s\u0323\u0307", "s\u0307\u0323"}, {"한", "\u1112\u1161\u11ab"},
		{"が", "か\u3099"}, {"Ω", "\u2126"}, {"豈", "\uf900"},
	}},
	{"an accent or none", [][2]string{
		{"e", "é"}, {"a", "ä"}, {"n", "ñ"}, {"o", "ø"}, {"l", "ł"}, {"ae", "ä"}, {"ae", "æ"},
		{"か", "が"}, {"e", "e\u0301"}, {"й", "и"},
	}},
	{"compatibility forms", [][2]string{
		{"a", "ａ"}, {"fi", "ﬁ"}, {"2", "²"}, {"1", "①"}, {"1", "１"}, {"1", "١"}, {"kg", "㎏"},
		{"カ", "ｶ"}, {"か", "カ"}, {"a/b", "a／b"}, {"a.b", "a．b"}, {"...", "…"}, {"a", "𝐚"}, {"a", "ª"},
		{"ĳ", "ij"}, {"a@b", "a＠b"},
	}},
	{"letters that look the same", [][2]string{ // Cyrillic and Greek
		{"a", "а"}, {"o", "ο"}, {"A", "Α"},
	}},

	// MySQL's utf8 holds no characters of four bytes, and Latin-1 no Chinese.
	// Databases replace what they cannot hold, often by "?".
	{"characters outside of a small character set", [][2]string{
		{"日", "本"}, {"😀", "😁"}, {"😀", "?"}, {"日", "?"}, {"a", "a😀"}, {"a😀b", "a😀c"}, {"😀", "\ufffd"},
		{"😀", "日"}, {"ä", "Ã¤"}, {"ä", "?"}, {"日本", "日"},
	}},
	{"invalid UTF-8", [][2]string{
		{"\xff", "\xfe"}, {"\xff", "\ufffd"}, {"\xff", "?"}, {"a", "a\xff"}, {"ab", "a\xffb"},
		{"ä", "\xe4"}, {"/", "\xc0\xaf"}, {"\x00", "\xc0\x80"}, {"日", "\xe6\x97"},
		{"\xe6\x97", "\xe6"}, {"😀", "\xed\xa0\xbd\xed\xb8\x80"}, {"\xff", `\xff`}, {"\xff", "ÿ"},
	}},

	// Redis, shells, SQL's LIKE and regular expressions have patterns.
	{"patterns", [][2]string{
		{"a*c", "abc"}, {"a?c", "abc"}, {"a_c", "axc"}, {"a%c", "abbc"}, {"[ab]c", "bc"}, {"{a}", "a"},
		{"{a}b", "{a}c"}, {"a.c", "axc"}, {"^a", "a"}, {"a$", "a"}, {"~", "~a"}, {"$HOME", "HOME"},
		{"${a}", "$a"}, {"*", "anything"}, {"**", "*"}, {"%", "something"}, {"%%", "%"}, {"%25", "%"},
	}},
	{"quotes", [][2]string{
		{"'", "''"}, {`"`, `""`}, {"a", "'a'"}, {"a", `"a"`}, {"a", "`a`"}, {"`", "'"}, {"a'b", "ab"},
		{"a'b", "a''b"}, {`a'b`, `a\'b`}, {"a'b", "a’b"}, {"';--", "'; --"},
	}},
	{"punctuation and what replaces it", punctuationPairs()},
	{"other punctuation", [][2]string{
		{"a,b", "a;b"}, {"a|b", "a&b"}, {"|", "&"}, {"<a>", "a"}, {"(a)", "a"}, {"[a]", "a"},
		{"#", "##"}, {"a!", "a"}, {"-rf", "rf"}, {"a/b", "a\u2215b"}, {"a=b", "a:b"},
	}},
	{"numbers", [][2]string{
		{"1", "01"}, {"1", "1.0"}, {"1", "1e0"}, {"1", "+1"}, {"0", "-0"}, {"0", "00"}, {"16", "0x10"},
		{"1", "true"}, {"0", "false"}, {"9007199254740993", "9007199254740992"}, {"1000", "1,000"},
		{"Infinity", "inf"},
	}},

	// Databases and languages have words for "nothing", Windows has devices, and a
	// store may have files or keys of its own.
	{"words with a meaning", [][2]string{
		{"null", "NULL"}, {"null", "nil"}, {"none", "undefined"}, {"true", "TRUE"}, {"NaN", "nan"},
		{"nul.txt", "nul"}, {"aux", "AUX"}, {"default", "a"}, {"__proto__", "constructor"},
	}},
	{"names of a store's own", [][2]string{
		{"a.tmp", "a"}, {".tmp", "tmp"}, {"a.json", "a"}, {"a.lock", "a"}, {"a.draft", "a"},
		{"a~", "a"}, {"a.bak", "a"}, {"new-1", "old-1"}, {"k-a", "h-a"}, {"tombstone", "deleted"},
		{"version", "record"}, {"fincode:a", "a"}, {"fincode_sessions", "sessions"},
	}},

	// Columns, indexes and file names have a greatest length.
	{"length", lengthPairs()},
}

// punctuationPairs returns a pair for each ASCII punctuation mark, and for each
// character that stores like to write instead.
func punctuationPairs() [][2]string {
	var pairs [][2]string
	for _, mark := range "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" {
		for _, other := range []string{"_", "-", ""} {
			if string(mark) != other {
				pairs = append(pairs, [2]string{"a" + string(mark) + "b", "a" + other + "b"})
			}
		}
	}
	return pairs
}

// lengthPairs returns long keys that differ in one place.
func lengthPairs() [][2]string {
	k := func(n int) string { return strings.Repeat("k", n) }
	pairs := [][2]string{
		{k(300), k(299) + "K"}, {k(300), strings.Repeat("K", 300)}, {k(300), k(299) + "l"}, {k(300), "l" + k(299)}, {k(300), k(150) + "l" + k(149)}, {k(300), k(301)},
		{strings.Repeat("/", 300), strings.Repeat("/", 299)}, {strings.Repeat("ä", 150), strings.Repeat("ä", 149) + "ö"},
		{strings.Repeat("日", 100), strings.Repeat("日", 101)}, {"k", "kk"},
	}
	for _, n := range []int{32, 50, 63, 64, 100, 127, 128, 191, 200, 250, 255, 256, 300, 500, 512, 767, 1000, 1024, 2048, 3072, 4000, 4096} {
		pairs = append(pairs, [2]string{k(n) + "a", k(n) + "b"})
	}
	return pairs
}

// oddKeysDoNotCollide keeps a record under every odd key at the same time. Each
// record has a version of its own, so that a Load shows whose record it returned.
// After an error, the next steps would only repeat it.
func oddKeysDoNotCollide(t *testing.T, s store) {
	c := newCrowd(s)
	s.refuseUsed(t, c.keys...)
	c.saveAll(t)
	for _, step := range []func(*testing.T){c.loadAll, c.deleteFirstOfPairs, c.wantOthers, c.deleteSecondOfPairs, c.wantAll, c.wantListed} {
		step(t)
		if t.Failed() {
			return
		}
	}
}

// A crowd is a record under each odd key.
type crowd struct {
	store
	keys     []string
	versions map[string]string // by key
	keyOf    map[string]string // by version
	doomed   map[string]bool   // keys that are the first of a pair: the test deletes them
	refused  map[string]bool   // keys for which the store returned an error
}

func newCrowd(s store) *crowd {
	c := &crowd{
		store:    s,
		versions: make(map[string]string),
		keyOf:    make(map[string]string),
		doomed:   make(map[string]bool),
		refused:  make(map[string]bool),
	}
	eachPair(func(_, one, other string) {
		c.doomed[one] = true
		for _, key := range []string{one, other} {
			if c.versions[key] == "" {
				c.keys = append(c.keys, key)
				c.versions[key] = fmt.Sprintf("v%d", len(c.keys))
				c.keyOf[c.versions[key]] = key
			}
		}
	})
	return c
}

// eachPair calls do for each pair of odd keys.
func eachPair(do func(difference, one, other string)) {
	for _, odd := range oddKeys {
		for _, pair := range odd.pairs {
			do(odd.difference, pair[0], pair[1])
		}
	}
}

// saveAll saves a record under each key. loadAll explains a conflict.
func (c *crowd) saveAll(t *testing.T) {
	for _, key := range c.keys {
		err := c.Save(t.Context(), key, newRecord(c.versions[key]), "")
		switch {
		case err == nil, errors.Is(err, fincodeauth.ErrConflict):
		case !mayRefuse(key), errors.Is(err, fincodeauth.ErrNotFound):
			t.Errorf("Save(%s, %s over nothing) = %v", quote(key), c.versions[key], err)
			c.refused[key] = true
		default:
			t.Logf("the store refuses the key %s, as it may: %v", quote(key), err)
			c.refused[key] = true
		}
	}
}

func (c *crowd) loadAll(t *testing.T) {
	found := make(map[string]string) // by key: the key whose record Load returned
	for _, key := range c.keys {
		rec, err := c.Load(t.Context(), key)
		switch {
		case err == nil && c.keyOf[rec.Version] == "":
			t.Errorf("Load(%s) returned version %q, which nobody saved", quote(key), rec.Version)
		case err == nil:
			found[key] = c.keyOf[rec.Version]
			if diff := differ(rec, newRecord(rec.Version)); diff != "" {
				t.Errorf("Load(%s): %s", quote(key), diff)
			}
		case !c.refused[key]:
			t.Errorf("Load(%s) = %v, want %s", quote(key), err, c.versions[key])
		}
	}
	reportConfused(t, c.keys, found)
}

// isGone reports whether there is no record under the key.
func (c *crowd) isGone(t *testing.T, key string) bool {
	_, err := c.Load(t.Context(), key)
	return errors.Is(err, fincodeauth.ErrNotFound)
}

// deleteFirstOfPairs deletes the first key of each pair.
func (c *crowd) deleteFirstOfPairs(t *testing.T) {
	eachPair(func(difference, key, other string) {
		stays := !c.doomed[other] && !c.refused[other] && !c.isGone(t, other)
		if err := c.Delete(t.Context(), key); err != nil && !c.refused[key] {
			t.Fatalf("Delete(%s) = %v", quote(key), err)
		}
		if stays && c.isGone(t, other) {
			t.Errorf("%s: Delete of %s also removed %s", difference, quote(key), quote(other))
		}
	})
}

// wantOthers checks that the other keys still have their records, and saves the
// deleted ones again.
func (c *crowd) wantOthers(t *testing.T) {
	for _, key := range c.keys {
		switch {
		case c.refused[key]:
		case c.doomed[key]:
			c.wantNone(t, key)
			c.saveAgain(t, key)
		default:
			c.want(t, key, c.versions[key])
		}
	}
}

// saveAgain saves another record under a key that was deleted.
func (c *crowd) saveAgain(t *testing.T, key string) {
	c.versions[key] += "b"
	c.save(t, key, c.versions[key], "")
}

// deleteSecondOfPairs deletes the second key of each pair, while there is a record
// under all others.
func (c *crowd) deleteSecondOfPairs(t *testing.T) {
	eachPair(func(difference, other, key string) {
		if c.refused[other] || c.refused[key] {
			return
		}
		c.delete(t, key)
		if c.isGone(t, other) {
			t.Fatalf("%s: Delete of %s also removed %s", difference, quote(key), quote(other))
		}
		c.saveAgain(t, key)
	})
}

func (c *crowd) wantAll(t *testing.T) {
	for _, key := range c.keys {
		if !c.refused[key] {
			c.want(t, key, c.versions[key])
		}
	}
}

// wantListed checks that Keys yields all keys, if the store lists its keys.
func (c *crowd) wantListed(t *testing.T) {
	if lister := c.lister(t); lister != nil {
		wantKeys(t, lister, slices.DeleteFunc(slices.Clone(c.keys), func(key string) bool { return c.refused[key] }))
	}
}

// reportConfused fails the test for each key whose Load returned the record of
// another key.
func reportConfused(t *testing.T, keys []string, found map[string]string) {
	t.Helper()
	reported := make(map[string]bool)
	for _, odd := range oddKeys {
		for _, pair := range odd.pairs {
			one, other := pair[0], pair[1]
			if found[one] == "" || found[one] != found[other] {
				continue
			}
			t.Errorf("%s: the store confuses %s", odd.difference, quotePair(one, other))
			reported[one], reported[other] = true, true
		}
	}
	for _, key := range keys {
		if other := found[key]; other != "" && other != key && !reported[key] {
			t.Errorf("the store confuses %s", quotePair(other, key))
		}
	}
}

// quotePair quotes two keys. It says where two long keys differ if quote hides
// that.
func quotePair(one, other string) string {
	text := quote(one) + " and " + quote(other)
	if n := len(one); n == len(other) && n > 1 && one[:n-1] == other[:n-1] && n > quoted {
		return fmt.Sprintf("%s: two keys of %d bytes that differ in the last", text, n)
	}
	return text
}

const quoted = 30 // bytes of a key in a message

// quote quotes key in ASCII, because some keys look the same otherwise. It leaves
// out the middle of a long key.
func quote(key string) string {
	if len(key) <= quoted {
		return fmt.Sprintf("%+q", key)
	}
	return fmt.Sprintf("%+q...(%d bytes)...%+q", key[:8], len(key), key[len(key)-8:])
}
