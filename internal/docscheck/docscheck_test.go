package docscheck

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/manifest"
)

const root = "../.."

var (
	// proof is "path/file_test.go:TestName".
	proof = regexp.MustCompile(`([\w./-]+_test\.go):((?:Test|Fuzz|Example)\w*)`)
	// mention is every test file that is named, with or without a test.
	mention = regexp.MustCompile(`[\w./-]+_test\.go`)
	notYet  = regexp.MustCompile(`not yet: \S`)
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	code    = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
	word    = regexp.MustCompile("`([a-z_]+)`")
)

// row is a row of a table whose last column is headed "proof".
type row struct{ id, proof string }

// rows returns the rows of the tables of proofs, in their order.
func rows(doc string) []row {
	var out []row
	inside, wanted := false, false
	for _, line := range strings.Split(doc, "\n") {
		if !strings.HasPrefix(line, "|") {
			inside = false
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		first, last := strings.TrimSpace(cells[0]), strings.TrimSpace(cells[len(cells)-1])
		switch {
		case !inside:
			inside, wanted = true, last == "proof"
		case wanted && strings.Trim(first, "-: ") != "":
			out = append(out, row{first, last})
		}
	}
	return out
}

// unproved returns what is wrong with the proofs of doc, whose paths begin at
// dir: rows without one, and tests that do not exist.
func unproved(dir, doc string) []string {
	var faults []string
	for _, r := range rows(doc) {
		named := proof.FindAllStringSubmatch(r.proof, -1)
		if len(named) != len(mention.FindAllString(r.proof, -1)) {
			faults = append(faults, fmt.Sprintf("%s: a file is named without its test: %s", r.id, r.proof))
		}
		if len(named) == 0 && !notYet.MatchString(r.proof) {
			faults = append(faults, fmt.Sprintf("%s: neither a test nor a \"not yet\" with its reason: %q", r.id, r.proof))
		}
		for _, n := range named {
			found, err := tests(filepath.Join(dir, n[1]))
			if err != nil {
				faults = append(faults, fmt.Sprintf("%s: %v", r.id, err))
			} else if !slices.Contains(found, n[2]) {
				faults = append(faults, fmt.Sprintf("%s: %s has no %s", r.id, n[1], n[2]))
			}
		}
	}
	return faults
}

// tests returns the top-level functions of a file that go test runs.
func tests(path string) ([]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if ok && f.Recv == nil && (strings.HasPrefix(f.Name.Name, "Test") || strings.HasPrefix(f.Name.Name, "Fuzz") || strings.HasPrefix(f.Name.Name, "Example")) {
			out = append(out, f.Name.Name)
		}
	}
	return out, nil
}

// brokenLinks returns the relative links of doc, a document in dir, that lead to
// no file or to no heading of it.
func brokenLinks(dir, doc string) []string {
	var faults []string
	for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(doc, ""), -1) {
		target, heading, _ := strings.Cut(m[1], "#")
		if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
			continue
		}
		text := doc
		if target != "" {
			path := filepath.Join(dir, filepath.FromSlash(target))
			if _, err := os.Stat(path); err != nil {
				faults = append(faults, fmt.Sprintf("%s leads to no file", m[1]))
				continue
			}
			if heading == "" {
				continue
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				faults = append(faults, err.Error())
				continue
			}
			text = string(raw)
		}
		if !slices.Contains(headings(text), heading) {
			faults = append(faults, fmt.Sprintf("%s leads to no heading", m[1]))
		}
	}
	return faults
}

// headings returns the anchors of a document's headings.
func headings(doc string) []string {
	var out []string
	for _, line := range strings.Split(code.ReplaceAllStringFunc(doc, func(s string) string {
		return strings.Trim(strings.Split(s, "\n")[0], "`")
	}), "\n") {
		text, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if !ok || !strings.HasPrefix(line, "#") {
			continue
		}
		out = append(out, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z':
				return r
			default:
				return -1
			}
		}, strings.ToLower(text)))
	}
	return out
}

// strayBlocks returns the first lines of the Go blocks of doc that do not stand
// in source, indentation and alignment apart.
func strayBlocks(source, doc string) []string {
	plain := func(text string) string {
		lines := strings.Split(text, "\n")
		for i, line := range lines {
			lines[i] = strings.Join(strings.Fields(line), " ")
		}
		return strings.Join(lines, "\n")
	}
	source = "\n" + plain(source)
	var faults []string
	for _, block := range strings.Split(doc, "```go\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		if !strings.Contains(source, "\n"+plain(block)) {
			first, _, _ := strings.Cut(strings.TrimSpace(block), "\n")
			faults = append(faults, fmt.Sprintf("no example has the block that begins %q", first))
		}
	}
	return faults
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Every rule and every requirement has a test that exists, or says why not.
func TestSecurityIsProved(t *testing.T) {
	t.Parallel()
	doc := read(t, "docs", "security.md")
	for _, fault := range unproved(root, doc) {
		t.Error(fault)
	}
	var wanted []string
	for i := range 11 {
		wanted = append(wanted, fmt.Sprint(i+1))
	}
	for i := range 8 {
		wanted = append(wanted, fmt.Sprint("D", i+1))
	}
	wanted = append(wanted, "6.", "7.", "8.", "9.", "10.") // the chapters of ASVS
	for _, id := range wanted {
		if !slices.ContainsFunc(rows(doc), func(r row) bool { return r.id == id || strings.HasSuffix(id, ".") && strings.HasPrefix(r.id, id) }) {
			t.Errorf("nothing is said about %s", id)
		}
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	docs, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(docs) < 5 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	for _, path := range append(docs, filepath.Join(root, "README.md"), filepath.Join(root, "CHANGELOG.md")) {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, fault := range brokenLinks(filepath.Dir(path), string(raw)) {
			t.Errorf("%s: %s", filepath.Base(path), fault)
		}
	}
}

// What a reader copies has been compiled and run.
func TestBlocksAreExamples(t *testing.T) {
	t.Parallel()
	source := ""
	for _, name := range []string{
		"engine/example_docs_test.go", "engine/example_machines_test.go", "engine/example_permissions_test.go", "engine/example_readme_test.go",
		"engine/example_signin_test.go", "mail/example_test.go",
	} {
		source += read(t, name) + "\n"
	}
	for _, name := range []string{
		"README.md", "docs/embedding.md", "docs/sessions.md", "docs/production.md", "docs/permissions.md", "docs/machines.md", "docs/operations.md",
		"docs/sign-in.md", "docs/mail.md", "docs/coming-from-mdb-engine.md",
	} {
		doc := read(t, name)
		if !strings.Contains(doc, "```go\n") {
			t.Errorf("%s has no Go block", name)
		}
		for _, fault := range strayBlocks(source, doc) {
			t.Errorf("%s: %s", name, fault)
		}
	}
}

// Whoever looks a type of the audit trail up finds it, and finds no other.
func TestEventTypesAreDocumented(t *testing.T) {
	t.Parallel()
	_, section, _ := strings.Cut(read(t, "docs", "operations.md"), "### What is recorded\n")
	var listed []string
	for _, line := range strings.Split(section, "\n") {
		if strings.HasPrefix(line, "#") {
			break
		}
		if strings.HasPrefix(line, "|") {
			for _, m := range word.FindAllStringSubmatch(line, -1) {
				listed = append(listed, m[1])
			}
		}
	}
	slices.Sort(listed)
	var types []string
	for _, kind := range event.Types() {
		types = append(types, string(kind))
	}
	slices.Sort(types)
	if diff := cmp.Diff(types, listed); diff != "" {
		t.Errorf("the types of events and those of docs/operations.md (-event +document):\n%s", diff)
	}
}

// A manifest that a reader copies is one that loads, but for the variables.
func TestManifestsOfGuidesAreValid(t *testing.T) {
	t.Parallel()
	variable := func(name string) (string, bool) { return "the value of the variable " + name, true }
	for _, name := range []string{"README.md", "docs/permissions.md", "docs/machines.md", "docs/operations.md", "docs/sign-in.md"} {
		found := 0
		for _, block := range strings.Split(read(t, name), "```json\n")[1:] {
			block, _, _ = strings.Cut(block, "```")
			if !strings.Contains(block, `"slug"`) {
				continue
			}
			found++
			if _, err := manifest.Parse([]byte(block), &manifest.Options{LookupEnv: variable}); err != nil {
				t.Errorf("%s: %v in\n%s", name, err, block)
			}
		}
		if found == 0 {
			t.Errorf("%s has no manifest", name)
		}
	}
}

// The checks themselves, on a document where everything is wrong.
func TestFaultsAreFound(t *testing.T) {
	t.Parallel()
	const bad = `# A title, with (signs)
| id | statement | proof |
|---|---|---|
| good | x | ` + "`docscheck_test.go:TestFaultsAreFound`" + `, ` + "`docscheck_test.go:TestLinksLeadSomewhere`" + ` |
| later | x | not yet: with version 2 |
| empty | x | |
| words | x | surely |
| hollow | x | not yet: |
| gone | x | ` + "`docscheck_test.go:TestThatNobodyWrote`" + ` |
| helper | x | ` + "`docscheck_test.go:rows`" + ` |
| method | x | ` + "`docscheck_test.go:Test`" + ` |
| file | x | ` + "`nowhere_test.go:TestX`" + ` |
| bare | x | ` + "`docscheck_test.go`" + ` |

| name | meaning |
|---|---|
| other | a table without proofs |

[good](doc.go) [self](#a-title-with-signs) [web](https://example.com/x) ` + "`[code](none.md)`" + `
[file](none.md) [heading](#none) [there](../../README.md#none)
` + "```go\nfunc nobodyHas() {}\n```\n```go\nconst  root = \"../..\"\n```\n"
	proofs := unproved(".", bad)
	for _, id := range []string{"empty", "words", "hollow", "gone", "helper", "method", "file", "bare"} {
		if !slices.ContainsFunc(proofs, func(f string) bool { return strings.HasPrefix(f, id+": ") }) {
			t.Errorf("nothing is found wrong with %s", id)
		}
	}
	for _, f := range proofs {
		if strings.HasPrefix(f, "good") || strings.HasPrefix(f, "later") || strings.HasPrefix(f, "other") {
			t.Errorf("a fault where none is: %s", f)
		}
	}
	if got := brokenLinks(".", bad); len(got) != 3 {
		t.Errorf("broken links: %q, want none.md, #none and README.md#none", got)
	}
	if got := strayBlocks(read(t, "internal", "docscheck", "docscheck_test.go"), bad); len(got) != 1 {
		t.Errorf("blocks of no example: %q", got)
	}
}

// Every package that has tests looks for goroutines that outlive them.
func TestEveryPackageLooksForGoroutines(t *testing.T) {
	t.Parallel()
	tests, mains := map[string]bool{}, map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".git") || d.Name() == "bench" || d.Name() == "tools") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		tests[dir] = true
		mains[dir] = mains[dir] || strings.Contains(string(raw), "func TestMain(m *testing.M) { storetest.Main(m) }") ||
			strings.Contains(string(raw), "func TestMain(m *testing.M) { goleak.VerifyTestMain(m")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(tests) < 15 {
		t.Errorf("only %d packages with tests were found", len(tests))
	}
	for dir := range tests {
		if !mains[dir] {
			t.Errorf("%s does not look for goroutines", dir)
		}
	}
}
