"""PatchCore (Roth et al., CVPR 2022): the distance of a patch to a bank of good ones."""
