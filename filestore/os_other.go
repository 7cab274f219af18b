//go:build !unix

package filestore

import "io/fs"

// syncDir does nothing. Windows cannot sync a folder, and NTFS has a journal for
// names.
func syncDir(string) error { return nil }

// writableByOthers returns false, because on these systems the mode does not say
// who may write.
func writableByOthers(fs.FileInfo) bool { return false }
