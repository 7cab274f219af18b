package filestore

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"strings"
)

const (
	// keyPrefix precedes the key itself. With a prefix, no name is a reserved one
	// such as CON.
	keyPrefix = "k-"

	// hashPrefix precedes the SHA-256 of a key that is too long for a name.
	hashPrefix = "h-"

	maxName = 200 // bytes; file systems allow 255
)

// folderName returns the name of key's folder. No other key has that name, even on
// a file system that ignores case or changes Unicode.
func folderName(key string) string {
	var b strings.Builder
	b.WriteString(keyPrefix)
	for _, c := range []byte(key) {
		if plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02x", c)
		}
	}
	if b.Len() > maxName {
		return fmt.Sprintf("%s%x", hashPrefix, sha256.Sum256([]byte(key)))
	}
	return b.String()
}

// keyOf returns the key whose folder has the name, and false if the name does not say it.
func keyOf(name string) (string, bool) {
	escaped, ok := strings.CutPrefix(name, keyPrefix)
	if !ok {
		return "", false
	}
	key, err := url.PathUnescape(strings.ReplaceAll(escaped, "=", "%"))
	return key, err == nil && folderName(key) == name
}

func isFolderName(name string) bool {
	return strings.HasPrefix(name, keyPrefix) || strings.HasPrefix(name, hashPrefix)
}

// plain reports whether c stands for itself in a folder's name. Upper case does
// not, because some file systems ignore case.
func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '@'
}
