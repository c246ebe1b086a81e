from vesselsdf.mesh.checks import check as check
from vesselsdf.mesh.wall import surface as surface
from vesselsdf.mesh.writers import write_mesh as write_mesh
