package filestore

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

const (
	keyPrefix  = "k-" // and the key itself; also so that none is a reserved name like CON
	hashPrefix = "h-" // and the SHA-256 of a key too long for a name

	maxName = 200 // bytes; file systems allow 255
)

// folderName returns the name of key's folder. It differs from every other key's
// even where a file system ignores case or changes Unicode.
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

func isFolderName(name string) bool {
	return strings.HasPrefix(name, keyPrefix) || strings.HasPrefix(name, hashPrefix)
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '@'
}
