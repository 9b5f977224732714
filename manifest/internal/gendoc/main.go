// Command gendoc writes docs/manifest.md, whose path is its argument.
package main

import (
	"log"
	"os"

	"github.com/mandate-auth/mandate/manifest/internal/reference"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: gendoc docs/manifest.md")
	}
	text, err := reference.Markdown()
	if err == nil {
		err = os.WriteFile(os.Args[1], []byte(text), 0o644) //nolint:gosec // a document for everybody
	}
	if err != nil {
		log.Fatal(err)
	}
}
