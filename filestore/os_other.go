//go:build !unix

package filestore

import "io/fs"

// syncDir does nothing: Windows cannot sync a folder, and NTFS journals names.
func syncDir(string) error { return nil }

// writableByOthers is always false: the mode says nothing here about who may write.
func writableByOthers(fs.FileInfo) bool { return false }
