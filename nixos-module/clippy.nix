# The lints over the program itself; the tests' sources are not part of the package.
{ project-yum, clippy }:
project-yum.overrideAttrs (old: {
  pname = "project-yum-clippy";
  nativeBuildInputs = (old.nativeBuildInputs or [ ]) ++ [ clippy ];
  buildPhase = ''
    runHook preBuild
    cargo clippy --offline --lib --bins -- -D warnings
    runHook postBuild
  '';
  doCheck = false;
  installPhase = "touch $out";
  dontFixup = true;
})
