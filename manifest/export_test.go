package manifest

// Whole returns every setting as it was read, before what all manifests have is left out.
func Whole(data []byte, lookup func(string) (string, bool)) ([]Setting, error) {
	m, err := newParser(lookup).parseWhole(data)
	if err != nil {
		return nil, err
	}
	return m.settings, nil
}
