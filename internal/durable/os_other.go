//go:build !unix

package durable

import "io/fs"

// SyncDir does nothing. Windows cannot sync a folder, and NTFS has a journal for
// names.
func SyncDir(string) error { return nil }

// writableByOthers returns false, because on these systems the mode does not say
// who may write.
func writableByOthers(fs.FileInfo) bool { return false }
