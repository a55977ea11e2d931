# Rust as rustfmt wants it; `nix fmt` does the same for the Nix files.
{
  runCommand,
  rustfmt,
  source,
}:
runCommand "project-yum-fmt" { nativeBuildInputs = [ rustfmt ]; } ''
  cd ${source}
  find src tests bench -name '*.rs' -print0 | xargs -0 rustfmt --check --edition 2024
  touch $out
''
