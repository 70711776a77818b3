"""One page with everything: tables, differences, curves, costs, provenance, licences."""
