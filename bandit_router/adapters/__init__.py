"""Everything that touches files, sockets, native libraries: foreign errors are translated here."""
